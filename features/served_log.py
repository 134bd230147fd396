"""Reads the served log; see `features.served_schema` for its columns."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.event_log import day_files
from features.parquet_columns import FileGoneError, LogError, read_columns, readable
from features.served_schema import SERVED

_IDENTITY = ("request_id", "answered_at")
_NULLABLE = ("features_at", "usage_run", "text")
COLUMNS: dict[str, pl.DataType] = dict(pl.DataFrame(pl.from_arrow(SERVED.empty_table())).schema)


def served_rows(log: Path, columns: Sequence[str], sample: int | None = None) -> pl.DataFrame:
    """Some columns of a served log, in the order of its files.

    Args:
        columns: names out of `SERVED`.
        sample: the number of rows to return, those whose ids and times have the smallest hashes; default: all.

    Raises:
        LogError: there is no log, it is empty, a file is damaged, or a column is missing, has a wrong type or nulls
            that the service never writes.
    """
    if sample is None:
        frames = [frame for _, frame in served_files(log, columns) if frame.height]
    else:
        identities = [frame.hash_rows() for _, frame in served_files(log, _IDENTITY) if frame.height]
        limit = pl.concat(identities).sort().head(sample).max() if identities else None
        files = served_files(log, sorted({*columns, *_IDENTITY}))
        chosen = [frame.filter(frame.select(_IDENTITY).hash_rows() <= limit) for _, frame in files if frame.height]
        frames = [frame.select(columns) for frame in chosen]
    if not frames:
        raise LogError(f"{log}: the log holds no rows")
    return pl.concat(frames)


def served_files(
    log: Path, columns: Sequence[str], last_days: int | None = None
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Some columns of a served log, file by file, with their days.

    Args:
        columns: names out of `SERVED`.
        last_days: how many days to read, up to the newest one of the log; default: all.

    Raises:
        LogError: as in `served_rows`, except that files without rows, and those deleted meanwhile, are no error.
    """
    files = day_files(log)
    newest = max(files)
    for day, paths in sorted(files.items()):
        if last_days is None or (newest - day).days < last_days:
            for path in paths:
                try:
                    rows = _read(path, columns)
                except FileGoneError:
                    continue
                yield day, rows


def _read(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    with readable(file):
        table = read_columns(file, columns).select(list(columns))
        table.validate(full=True)  # polars assumes valid UTF-8
        frame = pl.DataFrame(pl.from_arrow(table))
    for column, kind in frame.schema.items():
        if kind != COLUMNS[column]:
            raise LogError(f"{file}: column {column!r} is {kind}, expected {COLUMNS[column]}")
        if column not in _NULLABLE and _has_nulls(table[column]):
            raise LogError(f"{file}: column {column!r} holds nulls, which the service never writes there")
    return frame


def _has_nulls(values: pa.ChunkedArray) -> bool:
    """Whether there are nulls, also inside lists and structs."""
    if values.null_count:
        return True
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _has_nulls(pc.list_flatten(values))
    return pa.types.is_struct(values.type) and any(_has_nulls(part) for part in values.flatten())
