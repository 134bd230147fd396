"""Screens that were served, against those that the screen log says the store held: equal, lagging, or wrong."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from features.event_log import day_files
from features.point_in_time import by_day, map_frames
from features.screen_history import recent_screens, screens_around, with_events
from features.store import StoreConfig

Event = tuple[str, str, bool]
"""Member, screen, and whether the store must have held it."""


def differing_screens(
    served: pl.DataFrame, log: Path, lag: timedelta, config: StoreConfig | None = None, *, progress: bool = True
) -> dict[int, tuple[list[str], bool]]:
    """The requests whose screens are not those of the log; Ray must have been started.

    Args:
        served: row (unique integers), user_id, moment (when the store was read), recent_screens.
        log: the screen log, day-partitioned Parquet.
        lag: an event that arrived within this time of the reading may or may not have been stored by then.

    Returns:
        By row: the expected screens, and whether some choice of such events explains those that were served.
    """
    limits, files = config or StoreConfig(), day_files(log)

    def kernel(day: date, part: pl.DataFrame) -> pl.DataFrame:
        return _compare(part, screens_around(part, files, limits, lag), lag, limits)

    found = map_frames(kernel, by_day(served), "days of screens", progress)
    return {row: (screens, lagging) for frame in found for row, screens, lagging in frame.iter_rows()}


def _compare(served: pl.DataFrame, events: pl.DataFrame, lag: timedelta, config: StoreConfig) -> pl.DataFrame:
    found = recent_screens(served, events, config).rename({"recent_screens": "expected"})
    both = served.join(found, on="row", how="left").with_columns(pl.col("expected").fill_null([]))
    wrong = both.filter(pl.col("recent_screens") != pl.col("expected"))
    candidates = _candidates(wrong, events, lag, config)
    lagging = [
        explained(screens, candidates.get(row, []), config.max_screens)
        for row, screens in wrong.select("row", "recent_screens").iter_rows()
    ]
    return wrong.select("row", "expected", pl.Series("lagging", lagging, pl.Boolean))


def _candidates(
    readings: pl.DataFrame, events: pl.DataFrame, lag: timedelta, config: StoreConfig
) -> Mapping[int, list[Event]]:
    """For each reading, the events that it may have found, newest first."""
    rows: dict[int, list[Event]] = {}
    sure = pl.col("arrived") <= pl.col("moment") - lag
    for pairs in with_events(readings, events, config, lag):
        known = pairs.filter(pl.col("arrived") <= pl.col("moment") + lag)
        once = known.group_by("row", "member", "at_ms").agg(pl.col("screen").first(), sure.any().alias("sure"))
        ordered = once.sort("at_ms", "member", descending=True)
        for row, *event in ordered.select("row", "member", "screen", "sure").iter_rows():
            rows.setdefault(row, []).append((event[0], event[1], event[2]))
    return rows


def explained(served: Sequence[str], events: Sequence[Event], limit: int) -> bool:
    """Whether a store that held all the sure events, and some of the others, would have answered so.

    Args:
        served: at most `limit` screens, oldest first.
        events: newest first.
    """
    matched, seen = {0}, dict[str, bool]()
    for member, screen, sure in events:
        if seen.get(member):
            continue  # a newer event of the same id and screen took its place
        certain = sure and member not in seen
        seen[member] = sure
        taken = {n + 1 for n in matched if n < len(served) and served[-1 - n] == screen}
        matched = taken | {n for n in matched if not certain or n == limit}
    return len(served) in matched
