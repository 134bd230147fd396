"""Erasure of users from the served log: its files are written again without their rows."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from features.drafts import replacing
from features.event_log import day_files
from features.parquet_columns import LogError, read_columns, readable


def requests_of(log: Path, users: Collection[str]) -> set[str]:
    """The ids of all requests of users.

    Raises:
        LogError: there is no log, or a file cannot be read.
    """
    return {request for _, requests in _holding(log, users, "find") for request in requests.to_pylist()}


def erase_served(log: Path, users: Collection[str], dry_run: bool = False) -> int:
    """Remove the rows of users, and the files that have no others.

    The service may go on writing meanwhile; what it has not written yet, the last `rotate_s` seconds, stays.

    Args:
        dry_run: only count.

    Returns:
        The number of their rows.

    Raises:
        LogError: there is no log, or a file cannot be read.
        OSError: a file cannot be written; those before it are without them.
    """
    erased = 0
    for path, requests in _holding(log, users, "erase"):
        erased += len(requests)
        if not dry_run:
            _without(path, users)
    return erased


def _holding(log: Path, users: Collection[str], doing: str) -> Iterator[tuple[Path, pa.ChunkedArray]]:
    """The files with rows of users, and the ids of these requests; those deleted meanwhile are passed over."""
    paths = [path for _, files in sorted(day_files(log).items()) for path in files]
    for path in tqdm(paths, desc=doing, unit="files", disable=None):
        try:
            with readable(path):
                table = read_columns(path, ["request_id", "user_id"])
                requests = table["request_id"].filter(_of(table, users))
        except LogError:
            if path.exists():
                raise
            continue
        if len(requests):
            yield path, requests


def _without(path: Path, users: Collection[str]) -> None:
    with readable(path), pq.ParquetFile(path) as file:
        table = file.read()
        kept = table.filter(pc.invert(_of(table, users)))
    if kept.num_rows:
        with replacing(path) as draft:
            pq.write_table(kept, draft, compression="zstd")
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def _of(table: pa.Table, users: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(table["user_id"], value_set=pa.array(list(users), table["user_id"].type))
