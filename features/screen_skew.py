"""Compares served screens with those that the store must have held by the screen log: equal, lagging, or wrong."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from features.event_log import day_files
from features.point_in_time import by_day, map_frames
from features.screen_history import Malformed, recent_screens, screens_around, with_events
from features.store import StoreConfig

_MAX_PATHS = 2_000
"""How many partial choices of events `explained` follows; dozens of unsure events of one user give more."""
Event = tuple[str, str, bool]
"""Member of the user's set, screen, and whether it is sure: whether it had certainly been given to the store."""


def differing_screens(
    served: pl.DataFrame, log: Path, lag: timedelta, config: StoreConfig | None = None, *, progress: bool = True
) -> tuple[dict[int, tuple[list[str], bool]], int]:
    """The requests whose screens differ from those of the log; Ray must have been started.

    Args:
        served: row (unique integers), user_id, moment (when the store was read), recent_screens.
        log: the screen log, day-partitioned Parquet.
        lag: an event that arrived within this time of a read may or may not have been stored by then.

    Returns:
        By row, the expected screens, and whether some choice of such events explains the served ones. And the number of
        invalid rows in the days of the log that were read.
    """
    limits, files = config or StoreConfig(), day_files(log)

    def kernel(day: date, part: pl.DataFrame) -> tuple[pl.DataFrame, Malformed]:
        events, malformed = screens_around(part, files, limits, lag)
        return compared(part, events, lag, limits), malformed

    differing, malformed = dict[int, tuple[list[str], bool]](), Malformed()
    for frame, invalid in map_frames(kernel, by_day(served), "days of screens", progress):
        differing |= {row: (screens, lagging) for row, screens, lagging in frame.iter_rows()}
        malformed |= invalid
    return differing, sum(malformed.values())


def compared(served: pl.DataFrame, events: pl.DataFrame, lag: timedelta, config: StoreConfig) -> pl.DataFrame:
    """The requests whose screens differ from those of the log: row, expected, lagging; see `differing_screens`.

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
    """For each reading, the events that the store may have held, newest first."""
    rows: dict[int, list[Event]] = {}
    sure = (pl.col("arrived") <= pl.col("moment") - lag) & ~pl.col("ahead")
    for pairs in with_events(readings, events, config, lag):
        known = pairs.filter(pl.col("arrived") <= pl.col("moment") + lag)
        once = known.group_by("row", "member", "at_ms").agg(pl.col("screen").first(), sure.any().alias("sure"))
        ordered = once.sort("at_ms", "member", descending=True)
        for row, member, screen, is_sure in ordered.select("row", "member", "screen", "sure").iter_rows():
            rows.setdefault(row, []).append((member, screen, is_sure))
    return rows


def explained(served: Sequence[str], events: Sequence[Event], limit: int) -> bool:
    """Whether a store that was given all sure events, and any choice of the others, could have answered `served`.

    True also if there are more choices to follow than `_MAX_PATHS`: then it cannot be excluded.

    A member can have several events, with different times. The store keeps the newest that it was given: an unsure one
    if that was chosen, or else the newest sure one.

    Args:
        served: screens, oldest first.
        events: newest first.
        limit: the number of screens that a read returns at most.
    """
    last = {member: place for place, (member, _, _) in enumerate(events)}
    # A path: how many served screens are matched, from the newest, and which members with further events were chosen.
    paths, settled = {(0, frozenset[str]())}, set[str]()
    for place, (member, screen, sure) in enumerate(events):
        if member in settled:
            continue
        if final := sure or place == last[member]:
            settled.add(member)
        further = set()
        for matched, chosen in paths:
            if matched == limit or member in chosen:
                further.add((matched, chosen - {member} if final else chosen))
                continue
            if not sure:
                further.add((matched, chosen))
            if matched < len(served) and served[-1 - matched] == screen:
                further.add((matched + 1, chosen if final else chosen | {member}))
        if len(further) > _MAX_PATHS:
            return True
        paths = further
    return any(matched == len(served) for matched, _ in paths)
