"""The served log: features, preprocessed input, logits and answer of every message in rotating Parquet files.

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
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deployments.served import ServedBatch, ServedLogConfig
from features.drafts import replacing

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """What waits to be written to a day's folder."""

    tables: list[pa.Table] = field(default_factory=list)
    queries: int = 0
    """Of the batches in `tables`, failed messages included."""

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)


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
        self._days: dict[date, _Waiting] = {}
        self._failing = False
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
                many = sum(waiting.rows for waiting in self._days.values()) >= self.config.rotate_rows
                if due or (many and not self._failing):
                    self._rotate()

    def _drain(self) -> None:
        while self._batches:
            batch = self._batches.popleft()
            waiting = self._days.setdefault(datetime.fromtimestamp(batch.answered_at, UTC).date(), _Waiting())
            try:
                waiting.tables.append(self._rows(batch, self.config.text))
                waiting.queries += len(batch.queries)
            except Exception:
                self.failures += 1
                logger.exception("served log: a batch of %d could not be turned into rows", len(batch.queries))
                self._settled += len(batch.queries)

    def _rotate(self) -> None:
        """Write a file for each day that has rows; those that cannot be written wait for the next attempt."""
        self._opened = time.monotonic()
        self._failing = False
        for day, waiting in list(self._days.items()):
            if waiting.tables and not self._write(day, pa.concat_tables(waiting.tables, promote_options="none")):
                continue
            del self._days[day]
            self.written += waiting.rows
            self._settled += waiting.queries
        self._forget_old()

    def _write(self, day: date, table: pa.Table) -> bool:
        name = f"served-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.parquet"
        try:
            with replacing(self.folder / f"day={day}" / name) as draft:
                pq.write_table(table, draft, compression="zstd")
        except (OSError, pa.ArrowException) as error:
            self.failures += 1
            self._failing = True
            reason = getattr(error, "strerror", None) or type(error).__name__
            logger.warning("served log: %s; %d rows wait for the next attempt", reason, table.num_rows)
            return False
        return True

    def _forget_old(self) -> None:
        """Delete files of days that need no longer be kept, drafts of killed processes among them."""
        if self.config.keep_days is None:
            return
        oldest = datetime.now(UTC).date() - timedelta(days=self.config.keep_days)
        try:
            old = [folder for folder in self.folder.glob("day=*") if folder.name < f"day={oldest}"]
        except OSError:  # those that could not be written tell of it
            return
        for folder in old:
            try:
                for file in [*folder.glob("served-*.parquet"), *folder.glob(".served-*")]:
                    file.unlink(missing_ok=True)
            except OSError as error:
                self.failures += 1
                logger.warning("served log: %s is kept: %s", folder.name, error.strerror)
            with contextlib.suppress(OSError):
                folder.rmdir()
