"""The batch pipeline: uses per user and product over a window, from the usage log into the feature store.

    day of raw events ─▶ partial of the day, in buckets of users ─▶ sum of a bucket over the window ─▶ Redis

Ray Data maps over days, then over buckets; polars aggregates each. A run is written under a version of its own
and becomes visible at the end, in one step. The version is that of the content, so repeating a run, also one that
was killed half-way, writes the same again.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from features.event_log import dates, day_files
from features.parquet_columns import LogError
from features.partials import BUCKETS, Partial, Partials
from features.ray_session import map_items
from features.usage import run_window
from features.usage_writer import UsageWriter
from features.window_sums import window_sums

_ALONE = 64 * 2**20
"""Bytes of a day that is aggregated here instead of in a worker, where it is the only one."""


@dataclass(frozen=True, slots=True)
class Window:
    """The days whose uses count: `days` of them, the last one the day before `as_of`."""

    as_of: date
    days: int = 60

    def __post_init__(self) -> None:
        longest = self.as_of.toordinal() - 1
        if not 1 <= self.days <= longest:
            raise ValueError(f"a window of {self.days} days before {self.as_of}: expected 1 to {longest} days")

    @property
    def first(self) -> date:
        return self.as_of - timedelta(days=self.days)

    @property
    def last(self) -> date:
        return self.as_of - timedelta(days=1)

    def dates(self) -> list[date]:
        return dates(self.first, self.last)


def run_id(window: Window, partials: Sequence[Partial]) -> str:
    """The version of a run: its window, and a digest of all that it sums."""
    digest = hashlib.sha256(repr([(p.day, p.digest) for p in partials]).encode()).hexdigest()
    return f"{window.as_of}-{window.days}d-{digest[:8]}"


def window_of(run: str) -> Window | None:
    """The window of a run that `materialize` made; None for other runs, such as that of the demo users."""
    found = run_window(run)
    return Window(*found) if found else None


class OlderRun(ValueError):
    """Readers see the run of a later day; the message names both."""


def refuse_older(window: Window, present: str | None) -> None:
    """Raise `OlderRun` if the run that readers see is of a later day than a window; other runs have no day."""
    newer = window_of(present or "")
    if newer and newer.as_of > window.as_of:
        raise OlderRun(
            f"readers see {present}, which is newer than a run as of {window.as_of}: "
            "--allow-older publishes the older one nevertheless"
        )


def materialize(
    events: Path,
    window: Window,
    writer: UsageWriter,
    partials: Partials | None = None,
    *,
    publish: bool = True,
    allow_older: bool = False,
    prefix: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Aggregate the window and write it; Ray must have been started.

    Args:
        events: the usage log, day-partitioned Parquet: event_id, user_id, product, at.
        partials: where daily aggregates are kept; default: beside the log, `<log>.partials`.
        publish: whether readers shall see the run.
        allow_older: whether they shall see it even if they see that of a later day.
        prefix: of the run's name; with one, it is no other's, whatever it sums.

    Returns:
        The run, and counts: days read and reused, events, malformed and duplicate rows, users, buckets that a killed
        attempt had written, days whose partials were deleted since the log has them no longer, seconds.

    Raises:
        LogError: the log has no day or no fitting row of the window, a file is damaged, or a column does not fit.
        OlderRun: readers see the run of a later day, by now. What was written expires.
        ExpiredRun: it took longer than values live.
        LostUsers: Redis does not hold all that was written.
        redis.RedisError: Redis does not take the values; nothing is visible then.
    """
    partials = partials or partials_beside(events)
    started = time.perf_counter()
    made, reused = aggregate_days(events, window, partials, progress)
    aggregated = time.perf_counter()
    counts = _row_counts(events, window, partials, made)
    run = prefix + run_id(window, made)
    begun = writer.begin(run)
    users = _write_buckets(partials, made, run, begun.users, writer, progress)
    writer.require(run, users)
    if publish:
        writer.publish(run, lambda present: None if allow_older else refuse_older(window, present), begun.until)
    forgotten = partials.forget(events, made)
    finished = time.perf_counter()
    return {
        "run": run,
        "published": publish,
        "window": [str(window.first), str(window.last)],
        **day_counts(window, made, reused),
        **counts,
        "users": users,
        "buckets_reused": len(begun.users),
        "days_forgotten": forgotten,
        "partials_s": round(aggregated - started, 2),
        "write_s": round(finished - aggregated, 2),
        "seconds": round(finished - started, 2),
    }


def partials_beside(events: Path) -> Partials:
    """Where the partials of a log are kept by default: beside it.

    Raises:
        LogError: nothing is beside it.
    """
    log = events.resolve() if events.name in ("", "..") else events
    if not log.name:
        raise LogError(f"{events}: nothing can be kept beside it: give --partials")
    return Partials(log.with_name(f"{log.name}.partials"))


def aggregate_days(events: Path, window: Window, partials: Partials, progress: bool) -> tuple[list[Partial], int]:
    """Make the partials of the window that are lacking or out of date.

    Returns:
        The partials of the window's days that the log has, in order, and how many of them were there already.
    """
    files = {day: found for day, found in day_files(events).items() if window.first <= day <= window.last}
    if not files:
        raise LogError(f"{events}: no day from {window.first} to {window.last}")
    known = {day: partial for day, paths in files.items() if (partial := partials.known(day, paths))}
    lacking = [day for day in files if day not in known]

    def build(day: date) -> Partial:
        return partials.build(day, files[day])

    size = _size(file for day in lacking for file in files[day])
    alone = len(lacking) == 1 and size < _ALONE  # there is nothing to share, and a map costs as much as this day
    for partial in map(build, lacking) if alone else map_items(build, lacking, "days", progress, size=size):
        known[date.fromisoformat(partial.day)] = partial
    return [known[day] for day in sorted(known)], len(files) - len(lacking)


def day_counts(window: Window, made: Sequence[Partial], reused: int) -> dict[str, int]:
    """How many days of a window were read, were reused, and are not in the log; see `aggregate_days`."""
    read = len(made) - reused
    return {"days_read": read, "days_reused": reused, "days_missing": window.days - len(made)}


def _row_counts(events: Path, window: Window, partials: Partials, made: Sequence[Partial]) -> dict[str, Any]:
    """How many rows the days have, of each kind, and where the malformed ones are kept.

    Raises:
        LogError: none fits.
    """
    malformed = sum(partial.malformed for partial in made)
    quarantine = str(partials.folder / "quarantine") if malformed else None
    rows = sum(partial.rows for partial in made)
    if not rows:
        unfit = f" fits; {malformed} are in {quarantine}" if malformed else ""
        raise LogError(f"{events}: no row from {window.first} to {window.last}{unfit}")
    duplicates = sum(partial.duplicates for partial in made)
    return {"events": rows, "malformed": malformed, "duplicates": duplicates, "quarantine": quarantine}


def _write_buckets(
    partials: Partials, made: Sequence[Partial], run: str, done: dict[int, int], writer: UsageWriter, progress: bool
) -> int:
    def write(number: int) -> int:
        return writer.write(run, number, window_sums(partials, number, made))

    lacking = [number for number in range(BUCKETS) if number not in done]
    size = _size(partials.path(date.fromisoformat(partial.day)) for partial in made)
    written: list[int] = list(map_items(write, lacking, "buckets", progress, size=size))
    return sum(done.values()) + sum(written)


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
