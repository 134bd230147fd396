"""What was served, to rotating Parquet files: features, preprocessed input, logits and answer of every message.

The path of a request pays one append a batch. A thread turns batches into Arrow tables and writes a file every
minute; a clean stop writes the rest. `python -m features skew`, `drift` and `training-set --feedback` read it.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deployments.served import ServedBatch, ServedLogConfig
from features.drafts import replacing

logger = logging.getLogger(__name__)


class ServedLog:
    """Collects served batches and writes them; `close` writes what is left."""

    def __init__(
        self, config: ServedLogConfig, rows: Callable[[ServedBatch, bool], pa.Table], drain_s: float = 0.25
    ) -> None:
        if config.folder is None:
            raise ValueError("a served log needs a folder")
        self.config, self.folder = config, Path(config.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written = self.dropped = self.failures = 0
        self._taken = self._settled = 0  # each written by one thread only
        self._rows, self._drain_s = rows, drain_s
        self._batches: deque[ServedBatch] = deque()
        self._tables: list[pa.Table] = []
        self._queries = 0
        """Of the batches in `_tables`."""
        self._day: date | None = None
        self._opened = time.monotonic()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._thread.start()

    def counts(self) -> dict[str, float]:
        return {
            "served_log_rows_total": self.written,
            "served_log_dropped_total": self.dropped,
            "served_log_failures_total": self.failures,
        }

    def levels(self) -> dict[str, float]:
        return {"served_log_pending": self.pending}

    @property
    def pending(self) -> int:
        """Rows that are not on disk yet."""
        return self._taken - self._settled

    def record(self, batch: ServedBatch) -> None:
        """Take a batch; returns at once."""
        if self.pending + len(batch.queries) > self.config.max_pending:
            self.dropped += len(batch.queries)
            return
        self._taken += len(batch.queries)
        self._batches.append(batch)

    def close(self) -> None:
        """Write all that was recorded; blocks until it is on disk."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            self._drain()
            self._rotate()

    def _run(self) -> None:
        while not self._closing.wait(self._drain_s):
            with self._lock:
                self._drain()
                due = time.monotonic() - self._opened >= self.config.rotate_s
                if self._tables and (due or self._held() >= self.config.rotate_rows):
                    self._rotate()

    def _held(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def _drain(self) -> None:
        while self._batches:
            batch = self._batches.popleft()
            day = datetime.fromtimestamp(batch.answered_at, UTC).date()
            if self._day != day:
                self._rotate()
                self._day = day
            try:
                self._tables.append(self._rows(batch, self.config.text))
                self._queries += len(batch.queries)
            except Exception:
                self.failures += 1
                logger.exception("served log: a batch of %d could not be turned into rows", len(batch.queries))
                self._settled += len(batch.queries)

    def _rotate(self) -> None:
        """Write the tables as one file; on failure they stay, for the next attempt."""
        self._opened = time.monotonic()
        if not self._tables:
            return
        table = pa.concat_tables(self._tables, promote_options="none")
        folder = self.folder / f"day={self._day}"
        name = f"served-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.parquet"
        try:
            with replacing(folder / name) as draft:
                pq.write_table(table, draft, compression="zstd")
        except OSError as error:
            self.failures += 1
            logger.warning("served log: %s; %d rows wait for the next attempt", error.strerror, table.num_rows)
            return
        self._tables.clear()
        self.written += table.num_rows
        self._settled += self._queries
        self._queries = 0
        self._forget_old()

    def _forget_old(self) -> None:
        if self.config.keep_days is None:
            return
        oldest = datetime.now(UTC).date() - timedelta(days=self.config.keep_days)
        for folder in self.folder.glob("day=*"):
            if folder.name < f"day={oldest}":
                for file in folder.glob("served-*.parquet"):
                    file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    folder.rmdir()
