"""Recent screens at past moments, from screen logs: what the store would have returned, for many readings at once.

An event counts from its arrival (`arrived_at`), or if that is unknown, from its own time (`at`). Of events with the
same id and screen the newest time counts, as in `features.screens`.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from features.event_log import dates, read_day
from features.schema import MAX_AHEAD
from features.screens import SEPARATOR
from features.store import StoreConfig

Integers = npt.NDArray[np.int64]
Malformed = dict[date, int]
"""The number of invalid rows in each day's folder of a screen log."""
_PAIRS_AT_ONCE = 2_000_000
_USER_MS = 1 << 40
"""Milliseconds between the keys of two users in `_slices`: longer than the events of one call can span."""


def screens_around(
    readings: pl.DataFrame, files: Mapping[date, list[Path]], config: StoreConfig, slack: timedelta = timedelta()
) -> tuple[pl.DataFrame, Malformed]:
    """The events that readings of about one day may have found, see `screen_events`, and the invalid rows.

    Args:
        readings: user_id, moment; at least one.
        files: the files of the log, by day.
        slack: how long after a reading an event may have arrived.
    """
    first, last = readings.select(
        first=pl.col("moment").min() - timedelta(seconds=config.screen_window_s, milliseconds=1),
        last=pl.col("moment").max() + slack + MAX_AHEAD,
    ).row(0)
    users = readings.select("user_id").unique()
    frames, malformed = [read_day([], first.date(), "screen").valid], Malformed()
    for day in dates(first.date(), last.date()):
        if day in files:
            events = read_day(files[day], day, "screen")
            malformed[day] = events.rejected.height
            within = events.valid.filter(pl.col("at").is_between(first, last))
            frames.append(within.join(users, on="user_id", how="semi"))
    return screen_events(pl.concat(frames, how="diagonal"), slack), malformed


def screen_events(events: pl.DataFrame, slack: timedelta = timedelta()) -> pl.DataFrame:
    """Events of a screen log as the store takes them: user_id, member, screen, at_ms, arrived, ahead.

    Events too far in the future, which the ingester refuses, are left out. An ingester that processes an event some
    time after its arrival accepts more of them.

    Args:
        slack: the longest time from arrival to processing; events that are accepted only because of it are `ahead`.
    """
    arrived = pl.coalesce("arrived_at", "at") if "arrived_at" in events.columns else pl.col("at")
    event_id = pl.col("event_id").str.replace_all(SEPARATOR, "", literal=True)
    screen = pl.col("screen").cast(pl.String)
    return events.filter(pl.col("at") <= arrived + MAX_AHEAD + slack).select(
        "user_id",
        pl.concat_str(event_id, pl.lit(SEPARATOR), screen).alias("member"),
        screen,
        pl.col("at").dt.epoch("ms").alias("at_ms"),
        arrived.alias("arrived"),
        (pl.col("at") > arrived + MAX_AHEAD).alias("ahead"),
    )


def recent_screens(readings: pl.DataFrame, events: pl.DataFrame, config: StoreConfig) -> pl.DataFrame:
    """The newest screens that had arrived by each reading, if any: row, recent_screens (oldest first).

    Args:
        readings: row, user_id, moment.
        events: as `screen_events` gives them.
    """
    ranked = events.filter(~pl.col("ahead")).with_columns(pl.col("member").rank("dense"))
    schema = {"row": readings.schema["row"], "recent_screens": pl.List(pl.String)}
    found = [pl.DataFrame(schema=schema)]
    for pairs in with_events(readings, ranked, config):
        arrived = pairs.filter(pl.col("arrived") <= pl.col("moment"))
        once = arrived.group_by("row", "member").agg(pl.col("at_ms").max(), pl.col("screen").first())
        newest = once.sort("row", "at_ms", "member").group_by("row", maintain_order=True)
        found.append(newest.agg(pl.col("screen").tail(config.max_screens).alias("recent_screens")))
    return pl.concat(found)


def with_events(
    readings: pl.DataFrame, events: pl.DataFrame, config: StoreConfig, slack: timedelta = timedelta()
) -> Iterator[pl.DataFrame]:
    """Pairs of a reading and an event of its user and window, arrived by then or not, in parts of bounded size.

    Yields:
        row, moment, and the columns of events without user_id.
    """
    users = events.select("user_id").unique().with_row_index("user")
    asked = readings.select("row", "user_id", "moment").join(users, on="user_id").drop("user_id")
    ordered = events.join(users, on="user_id").drop("user_id").sort("user", "at_ms")
    lead = events.select((pl.col("at_ms") - pl.col("arrived").dt.epoch("ms")).max()).item() or 0
    after_ms = max(lead, 0) + slack // timedelta(milliseconds=1) + 1
    first, sizes = _slices(asked, ordered, config.screen_window_s * 1000, after_ms)
    parts = np.cumsum(sizes) // _PAIRS_AT_ONCE
    for part in np.unique(parts):
        some = np.flatnonzero(parts == part)
        counts = sizes[some]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        mine = ordered.drop("user").select(pl.all().gather(np.repeat(first[some], counts) + within))
        yield asked.select("row", "moment").select(pl.all().gather(np.repeat(some, counts))).hstack(mine)


def _slices(asked: pl.DataFrame, ordered: pl.DataFrame, before_ms: int, after_ms: int) -> tuple[Integers, Integers]:
    """The index of each reading's first event, among events sorted by user and time, and their number, by bisection."""
    earliest = ordered["at_ms"].min()
    at, moment = ((c - earliest).to_numpy() for c in (ordered["at_ms"], asked["moment"].dt.epoch("ms")))
    of, mine = (frame["user"].cast(pl.Int64).to_numpy() * _USER_MS for frame in (ordered, asked))
    first = np.searchsorted(of + at, mine + np.clip(moment - before_ms, 0, _USER_MS))
    last = np.searchsorted(of + at, mine + np.clip(moment + after_ms, -1, _USER_MS - 1), side="right")
    return first, last - first
