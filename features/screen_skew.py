"""Screens that were served, against those that the screen log says the store held: equal, lagging, or wrong."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from features.event_log import day_files
from features.point_in_time import by_day, map_frames
from features.screen_history import Malformed, recent_screens, screens_around, with_events
from features.store import StoreConfig

_MAX_PATHS = 2_000
"""Of choices that `explained` follows at once: more come from dozens of unsure events of one user."""
Event = tuple[str, str, bool]
"""Member, screen, and whether the store must have held it."""


def differing_screens(
    served: pl.DataFrame, log: Path, lag: timedelta, config: StoreConfig | None = None, *, progress: bool = True
) -> tuple[dict[int, tuple[list[str], bool]], int]:
    """The requests whose screens are not those of the log; Ray must have been started.

    Args:
        served: row (unique integers), user_id, moment (when the store was read), recent_screens.
        log: the screen log, day-partitioned Parquet.
        lag: an event that arrived within this time of the reading may or may not have been stored by then.

    Returns:
        By row: the expected screens, and whether some choice of such events explains those that were served. And how
        many rows of the log were set aside, in all days that were read.
    """
    limits, files = config or StoreConfig(), day_files(log)

    def kernel(day: date, part: pl.DataFrame) -> tuple[pl.DataFrame, Malformed]:
        events, malformed = screens_around(part, files, limits, lag)
        return compared(part, events, lag, limits), malformed

    differing, malformed = dict[int, tuple[list[str], bool]](), Malformed()
    for frame, aside in map_frames(kernel, by_day(served), "days of screens", progress):
        differing |= {row: (screens, lagging) for row, screens, lagging in frame.iter_rows()}
        malformed |= aside
    return differing, sum(malformed.values())


def compared(served: pl.DataFrame, events: pl.DataFrame, lag: timedelta, config: StoreConfig) -> pl.DataFrame:
    """The requests whose screens are not those of the log: row, expected, lagging; see `differing_screens`.

    Args:
        events: as `features.screen_history.screens_around` gives them.
    """
    found = recent_screens(served, events, config).rename({"recent_screens": "expected"})
    both = served.join(found, on="row", how="left").with_columns(pl.col("expected").fill_null([]))
    wrong = both.filter(pl.col("recent_screens").ne_missing(pl.col("expected")))
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
    sure = (pl.col("arrived") <= pl.col("moment") - lag) & ~pl.col("ahead")
    for pairs in with_events(readings, events, config, lag):
        known = pairs.filter(pl.col("arrived") <= pl.col("moment") + lag)
        once = known.group_by("row", "member", "at_ms").agg(pl.col("screen").first(), sure.any().alias("sure"))
        ordered = once.sort("at_ms", "member", descending=True)
        for row, *event in ordered.select("row", "member", "screen", "sure").iter_rows():
            rows.setdefault(row, []).append((event[0], event[1], event[2]))
    return rows


def explained(served: Sequence[str], events: Sequence[Event], limit: int) -> bool:
    """Whether a store that held all the sure events, and some of the others, would have answered so.

    True, as what cannot be excluded, where more choices than `_MAX_PATHS` would have to be followed.

    Of the events of a member it holds one, the newest that it was given: where a newer one was, an older one is not
    there, sure as it is, and otherwise the newest of the sure ones must be.

    Args:
        served: screens, oldest first.
        events: newest first.
    """
    last = {member: place for place, (member, _, _) in enumerate(events)}
    paths, settled = {(0, frozenset[str]())}, set[str]()
    for place, (member, screen, sure) in enumerate(events):
        if member in settled:
            continue
        if final := sure or place == last[member]:
            settled.add(member)
        further = set()
        for matched, held in paths:
            if matched == limit or member in held:
                further.add((matched, held - {member} if final else held))
                continue
            if not sure:
                further.add((matched, held))
            if matched < len(served) and served[-1 - matched] == screen:
                further.add((matched + 1, held if final else held | {member}))
        if len(further) > _MAX_PATHS:
            return True
        paths = further
    return any(matched == len(served) for matched, _ in paths)
