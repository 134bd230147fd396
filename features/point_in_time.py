"""Features as of given moments, for many readings at once: what `FeatureStore` returned then, or would have.

    readings of a day ─▶ join with that day's screens and the edges of its neighbours ─▶ recent screens
    readings of a bucket of users ─▶ differences of its running sums of daily uses    ─▶ product usage

Ray Data maps over days and over buckets, polars works on each; nothing is shuffled.
"""

import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import ray

from features.event_log import day_files
from features.partials import Partial, Partials, buckets, within
from features.ray_session import map_items
from features.screen_history import Malformed, recent_screens, screens_around
from features.store import StoreConfig

MOMENT = pl.Datetime("us", "UTC")
Extra = TypeVar("Extra")
"""What a kernel returns beside its frame; must be picklable."""


def screens_at(
    readings: pl.DataFrame, log: Path, config: StoreConfig | None = None, *, progress: bool = True
) -> tuple[dict[int, list[str]], int]:
    """The recent screens of each reading, oldest first; Ray must have been started.

    Args:
        readings: row (unique integers), user_id, moment (`MOMENT`).
        log: the screen log, day-partitioned Parquet; workers must see it under the same path.

    Returns:
        By row; rows without recent screens are left out. And the number of invalid rows in the days that were read.

    Raises:
        LogError: a file is damaged, or a column is missing or of another type.
    """
    limits, files = config or StoreConfig(), day_files(log)

    def kernel(day: date, part: pl.DataFrame) -> tuple[pl.DataFrame, Malformed]:
        events, malformed = screens_around(part, files, limits)
        return recent_screens(part, events, limits), malformed

    seen, malformed = dict[int, list[str]](), Malformed()
    for frame, invalid in map_frames(kernel, by_day(readings), "days of screens", progress):
        seen |= dict(frame.iter_rows())
        malformed |= invalid
    return seen, sum(malformed.values())


def usage_at(
    readings: pl.DataFrame, partials: Partials, made: Sequence[Partial], *, progress: bool = True
) -> dict[int, dict[str, int]]:
    """The product usage of each reading; Ray must have been started.

    Args:
        readings: row (unique integers), user_id, and the window of the run that was read: as_of, days.
        made: the partials to count, from `batch.aggregate_days`. The folder may hold others, of days that the log no
            longer has.

    Returns:
        By row; rows without uses are left out.

    Raises:
        LogError: a partial was replaced by one with other content, or is damaged.
    """
    windows = readings.select("user_id", "as_of", "days").unique()
    parts = windows.with_columns(bucket=buckets(windows["user_id"])).partition_by(
        "bucket", as_dict=True, include_key=False
    )

    def kernel(number: int, part: pl.DataFrame) -> tuple[pl.DataFrame, None]:
        uses = uses_before(part, partials.read(number, within(made, *_days_of(part))))
        return uses.group_by("user_id", "as_of", "days").agg(pl.col("product").cast(pl.String), "uses"), None

    numbered = {int(number): part for (number,), part in parts.items()}
    rows: dict[int, dict[str, int]] = {}
    for frame, _ in map_frames(kernel, numbered, "buckets", progress):
        joined = readings.join(frame, on=["user_id", "as_of", "days"]).select("row", "product", "uses")
        rows |= {row: dict(zip(products, uses, strict=True)) for row, products, uses in joined.iter_rows()}
    return rows


def by_day(readings: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """The readings of each UTC day."""
    parts = readings.with_columns(pl.col("moment").dt.date().alias("day"))
    return {day: part for (day,), part in parts.partition_by("day", as_dict=True, include_key=False).items()}


def map_frames(
    kernel: Callable[[Any, pl.DataFrame], tuple[pl.DataFrame, Extra]],
    parts: Mapping[Any, pl.DataFrame],
    unit: str,
    progress: bool,
) -> Iterator[tuple[pl.DataFrame, Extra]]:
    """Map a kernel over frames and their keys with Ray Data; each frame is sent only to the worker that takes it.

    Yields:
        What the kernel returned for each: a frame, and an extra value.
    """
    items = [(key, ray.put(part)) for key, part in parts.items()]

    def answer(number: int) -> bytes:
        key, part = items[number]
        written = io.BytesIO()
        frame, extra = kernel(key, ray.get(part))
        frame.write_ipc(written, compression="lz4")
        return pickle.dumps((written.getvalue(), extra))

    for answered in map_items(answer, range(len(items)), unit, progress):
        frame, extra = pickle.loads(answered)
        yield pl.read_ipc(frame), extra


def uses_before(windows: pl.DataFrame, daily: pl.DataFrame) -> pl.DataFrame:
    """Uses in each window, from running sums: user_id, as_of, days, product, uses; pairs without uses have no row.

    Args:
        windows: user_id, as_of, days; each counts the uses of as_of - days … as_of - 1.
        daily: user_id, product, uses, day.
    """
    mine = daily.join(windows.select("user_id").unique(), on="user_id", how="semi")
    total = pl.col("uses").cast(pl.Int64).cum_sum().over("user_id", "product")
    sums = mine.sort("day").select("user_id", "product", "day", total.alias("total"))
    pairs = windows.join(sums.select("user_id", "product").unique(), on="user_id")
    until = _total_before(pairs, sums, pl.col("as_of"), "until")
    both = _total_before(until, sums, pl.col("as_of") - pl.duration(days="days"), "before")
    uses = pl.col("until") - pl.col("before")
    return both.select("user_id", "as_of", "days", "product", uses.alias("uses")).filter(pl.col("uses") > 0)


def _total_before(pairs: pl.DataFrame, sums: pl.DataFrame, day: pl.Expr, name: str) -> pl.DataFrame:
    """The pairs with a column `name`: the running sum of their uses before a day."""
    ends = pairs.with_columns(day.alias("end")).sort("end")
    keys = ["user_id", "product"]
    joined = ends.join_asof(
        sums, left_on="end", right_on="day", by=keys, allow_exact_matches=False, check_sortedness=False
    )
    return joined.drop("end", "day").rename({"total": name}).with_columns(pl.col(name).fill_null(0))


def _days_of(windows: pl.DataFrame) -> tuple[date, date]:
    """The first and the last day of all windows."""
    first = pl.col("as_of") - pl.duration(days="days")
    return windows.select(first=first.min(), last=pl.col("as_of").max() - timedelta(days=1)).row(0)
