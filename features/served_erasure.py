"""Erasure of users from the served log: its files are written again without their rows."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from features.drafts import replacing
from features.event_log import day_files
from features.parquet_columns import FileGoneError, read_columns, readable


def requests_of(log: Path, users: Collection[str]) -> dict[Path, list[str]]:
    """The files with requests of users, and the ids of these requests.

    Raises:
        LogError: there is no log, or a file cannot be read.
    """
    found = {}
    paths = [path for _, files in sorted(day_files(log).items()) for path in files]
    for path in tqdm(paths, desc="find", unit="files", disable=None):
        with suppress(FileGoneError), readable(path):
            table = read_columns(path, ["request_id", "user_id"])
            if requests := table["request_id"].filter(_of(table, users)).to_pylist():
                found[path] = requests
    return found


def erase_served(paths: Iterable[Path], users: Collection[str]) -> None:
    """Remove the rows of users from files, and the files that have no others.

    The service may go on writing meanwhile; what it has not written yet, the last `rotate_s` seconds, stays.

    Raises:
        LogError: a file cannot be read.
        OSError: a file cannot be written; those before it are without them.
    """
    for path in paths:
        with suppress(FileGoneError):
            _without(path, users)


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
