"""Event logs on disk: Parquet under `day=YYYY-MM-DD/`, read one day at a time and validated row by row.

A usage log has a column `product`, a screen log `screen` and, optionally, `arrived_at`. A file with missing columns or
wrong types is an error; an invalid row is set aside with the reason, and the others count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from features.parquet_columns import LogError, as_utf8, read_columns, readable
from features.schema import MAX_IDENTIFIER, UNDECODABLE

Value = Literal["product", "screen"]
"""The column that tells a usage log from a screen log."""
_PREFIX = "day="
_MOMENT = pl.Datetime("us", "UTC")
_PER_SECOND = {"ms": 10**3, "us": 10**6}
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999 in seconds since 1970. Parquet's time stamps can lie outside, where polars cannot print them."""
_RFC3339 = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:[0-5]\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)$"
"""As strict as the stream's parser; polars alone would accept second 60, single digits and spaces."""
_SLOTS = 2**20
"""Slots of a counting table of 8 MiB: an event id whose hash is alone in its slot has no duplicate."""
_SIDE_FILES = (".crc",)


@dataclass(frozen=True, slots=True)
class DayOfEvents:
    """One day of a log.

    Attributes:
        valid: event_id, user_id, product or screen (categorical), at (microseconds, UTC), arrived_at where the log
            has it.
        rejected: the same columns as text, and `reason`.
        duplicates: repeated rows of an event that were left out of `valid`.
    """

    valid: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: int


def day_files(log: Path) -> dict[date, list[Path]]:
    """The Parquet files of each day, sorted; hidden files, names that begin with `_` and checksums are ignored.

    Raises:
        LogError: there is no such folder, it holds no day, or a folder `day=…` names no date or holds folders or other
            files.
    """
    if not log.is_dir():
        raise LogError(f"{log}: no such folder")
    days: dict[date, list[Path]] = {}
    for folder in sorted(path for path in log.iterdir() if path.name.startswith(_PREFIX)):
        day = _day_of(folder)
        shown = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]
        if deeper := [path for path in shown if path.is_dir()]:
            raise LogError(f"{deeper[0]}: a folder, where the day's Parquet files should be")
        if other := [path for path in shown if path.suffix not in (".parquet", *_SIDE_FILES)]:
            raise LogError(f"{other[0]}: not named *.parquet, as the files of a day are")
        days[day] = [path for path in shown if path.suffix == ".parquet"]
    if not days:
        raise LogError(f"{log}: holds no folder {_PREFIX}YYYY-MM-DD")
    return days


def dates(first: date, last: date) -> list[date]:
    """The days from `first` to `last`, both included."""
    return [first + timedelta(number) for number in range((last - first).days + 1)]


def read_day(files: Sequence[Path], day: date, value: Value) -> DayOfEvents:
    """Read and validate one day.

    Args:
        files: Parquet files with the columns event_id, user_id, `value` (text) and at (a time stamp, UTC if it has no
            zone, or RFC 3339 text). A screen log may have arrived_at, null where unknown. Others are ignored.
        day: the UTC day on which every event must lie.

    Raises:
        LogError: a file is damaged, or a column is missing or of another type.
    """
    frames = [_read_file(file, value) for file in files]
    frame = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema=_schema(value))
    start = datetime.combine(day, time(), UTC)
    rules = {
        f"{column}: missing, or not 1 to {MAX_IDENTIFIER} characters of UTF-8": _fits(column, value)
        for column in ("event_id", "user_id", value)
    }
    rules["at: missing, or not RFC 3339"] = pl.col("at").is_not_null()
    rules[f"at: not on {day}"] = pl.col("at").is_between(start, start + timedelta(days=1), closed="left")
    rules["arrived_at: not RFC 3339"] = pl.col("arrival_fits")
    fits = pl.all_horizontal(rules.values())
    if frame.select(_all_plain(value, start)).item() or frame.select(fits.all()).item():
        valid, rejected = frame, frame.clear().with_columns(pl.lit("").alias("reason"))
    else:
        first_broken = pl.coalesce(pl.when(~rule).then(pl.lit(reason)) for reason, rule in rules.items())
        rejected = frame.filter(~fits).with_columns(first_broken.alias("reason"))
        valid = frame.filter(fits)
    once = _once(valid, value)
    as_text = pl.coalesce("at_text", pl.col("at").cast(pl.String))
    return DayOfEvents(
        once.drop("at_text", "arrival_fits"),
        rejected.select("event_id", "user_id", pl.col(value).cast(pl.String), as_text.alias("at"), "reason"),
        valid.height - once.height,
    )


def _day_of(folder: Path) -> date:
    name = folder.name.removeprefix(_PREFIX)
    try:
        day = date.fromisoformat(name)
    except ValueError:
        day = None
    if day is None or str(day) != name:  # Python also takes 20261101, which could be the same day once more
        raise LogError(f"{folder}: expected {_PREFIX}YYYY-MM-DD")
    return day


def _fits(column: str, value: Value) -> pl.Expr:
    """Whether a text has a valid length. In a screen log U+FFFD is invalid too, since the ingester refuses it."""
    text = pl.col(column).cast(pl.String)
    long_enough = text.str.len_chars().is_between(1, MAX_IDENTIFIER).fill_null(False)
    return long_enough if value == "product" else long_enough & ~text.str.contains(UNDECODABLE, literal=True)


def _all_plain(value: Value, start: datetime) -> pl.Expr:
    """Whether all rows are surely valid, from minima and maxima: fast, and true of nearly every day."""
    event, user, kind, at = (pl.col(column) for column in ("event_id", "user_id", value, "at"))
    end = start + timedelta(days=1)
    whole = [column.null_count() == 0 for column in (event, user, kind, at)]
    lengths = [event.str.len_bytes(), user.str.len_bytes(), kind.cat.len_bytes()]
    shortest = [length.min() >= 1 for length in lengths]
    longest = [length.max() <= MAX_IDENTIFIER for length in lengths]
    if value == "screen":
        whole += [~text.str.contains(UNDECODABLE, literal=True).any() for text in (event, user, kind.cast(pl.String))]
    return pl.all_horizontal(
        *whole, *shortest, *longest, at.min() >= start, at.max() < end, pl.col("arrival_fits").all()
    )


def _once(valid: pl.DataFrame, value: Value) -> pl.DataFrame:
    """Each event once, by id; in a screen log by id, user, screen and time, where the first to arrive stays."""
    suspects = _suspects(valid["event_id"])
    if not suspects.any():
        return valid
    if value == "product":
        first = valid["event_id"].filter(suspects).is_first_distinct()
        return valid.filter((~suspects).scatter(suspects.arg_true(), first))
    if "arrived_at" in valid.columns:
        valid = valid.sort(pl.coalesce("arrived_at", "at"), maintain_order=True)
    return valid.unique(["event_id", "user_id", "screen", "at"], keep="first", maintain_order=True)


def _suspects(texts: pl.Series) -> pl.Series:
    """Which texts may occur more than once: their hashes, which are faster to compare, do."""
    hashes = texts.hash()
    slots = (hashes.to_numpy() & np.uint64(_SLOTS - 1)).view(np.int64)
    shared = pl.Series(np.bincount(slots, minlength=_SLOTS)[slots] > 1)
    rest = hashes.filter(shared)
    again = rest.is_in(rest.filter(~rest.is_first_distinct()).unique().implode())
    return shared.scatter(shared.arg_true(), again)


def _schema(value: Value) -> dict[str, pl.DataType]:
    text = pl.String()
    columns = {"event_id": text, "user_id": text, value: pl.Categorical(), "at": _MOMENT, "at_text": text}
    return columns | {"arrival_fits": pl.Boolean()}


def _read_file(file: Path, value: Value) -> pl.DataFrame:
    with readable(file):
        frame = _columns(file, value)
    for column in ("event_id", "user_id", value):
        if frame[column].dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            raise LogError(f"{file}: column {column!r} is {frame[column].dtype}, expected text")
    frame = frame.cast({"event_id": pl.String, "user_id": pl.String, value: pl.Categorical})
    at_text = pl.col("at") if frame["at"].dtype == pl.String else pl.lit(None, pl.String)
    moments = [_moments(file, frame[column]) for column in frame.columns if column in ("at", "arrived_at")]
    parsed = frame.with_columns(at_text.alias("at_text"), pl.lit(True).alias("arrival_fits"), *moments)
    if "arrived_at" in frame.columns:
        unread = parsed["arrived_at"].is_null() & frame["arrived_at"].is_not_null()
        parsed = parsed.with_columns(arrival_fits=~unread)
    return parsed


def _columns(file: Path, value: Value) -> pl.DataFrame:
    """The columns that `read_day` names, with valid UTF-8 and all time zones as UTC."""
    table = read_columns(
        file, ["event_id", "user_id", value, "at"], ["arrived_at"] if value == "screen" else (), few=[value]
    )
    utc = table.cast(pa.schema([(field.name, _in_utc(field.type)) for field in table.schema]))
    return pl.DataFrame(pl.from_arrow(as_utf8(utc)))


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """The type with UTC for any other time zone, since polars does not know all of them."""
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz else kind


def _moments(file: Path, column: pl.Series) -> pl.Series:
    """The column in microseconds, UTC; times outside the years 1 to 9999 become their first or last second."""
    if column.dtype == pl.String:
        column = _parsed(column)
    if column.dtype == pl.Null:
        return column.cast(_MOMENT)
    if not isinstance(column.dtype, pl.Datetime):
        raise LogError(f"{file}: column {column.name!r} is {column.dtype}, expected a time stamp or RFC 3339 text")
    unit = column.dtype.time_unit
    if unit in _PER_SECOND:
        within = column.to_physical().clip(_FIRST * _PER_SECOND[unit], _LAST * _PER_SECOND[unit])
        column = within.cast(pl.Datetime(unit))
    return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _parsed(texts: pl.Series) -> pl.Series:
    """RFC 3339 texts as times, rounded half up to microseconds like the stream's parser does; null for other texts."""
    text = pl.when(pl.col("text").str.contains(_RFC3339)).then(pl.col("text"))
    moment = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    seventh = text.str.extract(r"\.\d{6}(\d)").cast(pl.Int64).fill_null(0)
    up = pl.duration(microseconds=(seventh >= 5).cast(pl.Int64))
    return texts.to_frame("text").select((moment + up).alias(texts.name)).to_series()
