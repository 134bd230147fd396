"""Reads the served log; see `features.served_schema` for its columns."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import polars as pl

from features.event_log import LogError, day_files, readable
from features.served_schema import SERVED

_IDENTITY = ("request_id", "answered_at")
COLUMNS: dict[str, pl.DataType] = dict(pl.DataFrame(pl.from_arrow(SERVED.empty_table())).schema)


def served_rows(
    log: Path, columns: Sequence[str], last_days: int | None = None, sample: int | None = None
) -> pl.DataFrame:
    """Some columns of a served log, in the order of its files.

    Args:
        columns: names out of `SERVED`.
        last_days: only so many days, up to the newest that the log has.
        sample: only so many rows, those whose ids and times have the smallest hashes.

    Raises:
        LogError: there is no log, it is empty, a file is damaged, or a column is missing or of another type.
    """
    if sample is None:
        frames = [frame for _, frame in served_files(log, columns, last_days) if frame.height]
    else:
        identities = [frame.hash_rows() for _, frame in served_files(log, _IDENTITY, last_days) if frame.height]
        limit = pl.concat(identities).sort().head(sample).max() if identities else None
        files = served_files(log, sorted({*columns, *_IDENTITY}), last_days)
        chosen = [frame.filter(frame.select(_IDENTITY).hash_rows() <= limit) for _, frame in files if frame.height]
        frames = [frame.select(columns) for frame in chosen]
    if not frames:
        raise LogError(f"{log}: the log holds no rows")
    return pl.concat(frames)


def served_files(
    log: Path, columns: Sequence[str], last_days: int | None = None
) -> Iterator[tuple[date, pl.DataFrame]]:
    """Some columns of a served log, file by file, with their days; see `served_rows`."""
    files = day_files(log)
    newest = max(files)
    for day, paths in sorted(files.items()):
        if last_days is None or (newest - day).days < last_days:
            for path in paths:
                yield day, _read(path, columns)


def _read(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    with readable(file):
        schema = pl.read_parquet_schema(file)
        for column in columns:
            if schema.get(column) != COLUMNS[column]:
                found = "is missing" if column not in schema else f"is {schema[column]}, expected {COLUMNS[column]}"
                raise LogError(f"{file}: column {column!r} {found}")
        return pl.read_parquet(file, columns=list(columns), hive_partitioning=False)
