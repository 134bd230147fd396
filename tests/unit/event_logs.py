"""Event logs on disk for the tests, and what a plain computation makes of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.event_log import day_files
from features.partials import BUCKETS, Partial, Partials

DAY = date(2026, 10, 1)
Use = tuple[str, str]
"""A user and a product."""
USES: list[Use] = [("u1", "a"), ("u2", "b"), ("u1", "a")]
Uses = dict[str, dict[str, int]]


def noon(day: date = DAY, seconds: float = 0) -> datetime:
    return datetime.combine(day, time(12), UTC) + timedelta(seconds=seconds)


def table(uses: Sequence[Use], day: date = DAY, first: int = 0, prefix: str = "e", **columns: pa.Array) -> pa.Table:
    """Events e0, e1, … of a day at noon; `columns` replace those of the same name."""
    rows = {
        "event_id": pa.array([f"{prefix}{first + number}" for number in range(len(uses))], pa.string()),
        "user_id": pa.array([user for user, _ in uses], pa.string()),
        "product": pa.array([product for _, product in uses], pa.string()),
        "at": pa.array([noon(day)] * len(uses), pa.timestamp("us", "UTC")),
    }
    return pa.table(rows | columns)


def write(log: Path, day: date, content: pa.Table | Sequence[Use], name: str = "part-00000.parquet") -> Path:
    """A file of a log, from a table or from a user and a product for each of its own events."""
    file = log / f"day={day}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content if isinstance(content, pa.Table) else table(content, day, prefix=name), file)
    return file


def not_utf8(texts: list[str]) -> pa.Array:
    """Texts as a writer leaves them that takes Latin-1 for UTF-8."""
    encoded = pa.array([text.encode("latin-1") for text in texts], pa.binary())
    return pa.StringArray.from_buffers(len(texts), *encoded.buffers()[1:])


def build(log: Path, partials: Partials) -> list[Partial]:
    """Make the partials of all days of a log."""
    return [partials.build(day, files) for day, files in day_files(log).items()]


def counted(days: Iterable[Sequence[Use]]) -> Uses:
    """Uses by user and product over some days, one by one."""
    found: dict[str, Counter[str]] = {}
    for uses in days:
        for user, product in uses:
            found.setdefault(user, Counter())[product] += 1
    return {user: dict(products) for user, products in found.items()}


def as_dict(frames: Iterable[pl.DataFrame]) -> Uses:
    """Frames of user_id, product and uses, each pair once."""
    found: Uses = {}
    for frame in frames:
        for user, product, uses in frame.select("user_id", pl.col("product").cast(pl.String), "uses").iter_rows():
            assert product not in found.setdefault(user, {})
            found[user][product] = uses
    return found


def all_buckets(partials: Partials, *made: Partial) -> Uses:
    return as_dict(partials.read(number, made) for number in range(BUCKETS))
