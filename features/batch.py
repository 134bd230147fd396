"""The batch pipeline: uses per user and product over a window, from the usage log into the feature store.

    day of raw events ─▶ partial of the day, in buckets of users ─▶ sum of a bucket over the window ─▶ Redis

Ray Data maps over days, then over buckets; numpy aggregates each. A run is written under its own name and becomes
visible at the end, atomically. The name contains a digest of what is summed, so repeating a run, for example one that
was killed, writes the same keys and values again.
"""

import hashlib
import time
from collections.abc import Collection, Iterable, Sequence
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

_LOCAL_BYTES = 64 * 2**20
"""A single day with fewer bytes than this is aggregated in this process: a map over one item costs as much."""


@dataclass(frozen=True, slots=True)
class Window:
    """The days whose uses count: the `days` days before `as_of`."""

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
    """The name of a run: its window, and a digest of the partials that it sums."""
    digest = hashlib.sha256(repr([(p.day, p.digest) for p in partials]).encode()).hexdigest()
    return f"{window.as_of}-{window.days}d-{digest[:8]}"


def window_of(run: str) -> Window | None:
    """The window of a run that `materialize` made; None for other runs, such as that of the demo users."""
    found = run_window(run)
    return Window(*found) if found else None


class OlderRun(ValueError):
    """The published run is of a later day; the message names both."""


def refuse_older(window: Window, present: str | None) -> None:
    """Raise `OlderRun` if the published run is of a later day than the window; foreign runs have no day."""
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
        publish: make it the run that readers see.
        allow_older: publish even if the published run is of a later day.
        prefix: of the run's name, for a run that must not share its keys with another of the same content.

    Returns:
        The run, and counts: days read and reused, events, malformed and duplicate rows, users, buckets that a killed
        attempt had written, days whose partials were deleted because the log lost them, seconds.

    Raises:
        LogError: the log has no day or no valid row in the window, a file is damaged, or a column has a wrong type.
        OlderRun: by the end, the published run is of a later day. What was written expires.
        ExpiredRun: writing took longer than values live.
        LostUsers: Redis lost some of the users that were written.
        redis.RedisError: Redis refused values or did not answer; readers see the earlier run.
    """
    partials = partials or partials_beside(events)
    started = time.perf_counter()
    made, reused = aggregate_days(events, window.dates(), partials, progress)
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
        **day_counts(window.days, made, reused),
        **counts,
        "users": users,
        "buckets_reused": len(begun.users),
        "days_forgotten": forgotten,
        "partials_s": round(aggregated - started, 2),
        "write_s": round(finished - aggregated, 2),
        "seconds": round(finished - started, 2),
    }


def partials_beside(events: Path) -> Partials:
    """The default folder of a log's partials, `<log>.partials`.

    Raises:
        LogError: the log is the root folder, which has no neighbour.
    """
    log = events.resolve() if events.name in ("", "..") else events
    if not log.name:
        raise LogError(f"{events}: nothing can be kept beside it: give --partials")
    return Partials(log.with_name(f"{log.name}.partials"))


def aggregate_days(
    events: Path, days: Collection[date], partials: Partials, progress: bool
) -> tuple[list[Partial], int]:
    """Build missing or outdated partials of some days of the usage log; Ray must have been started.

    Returns:
        The partials of those days that the log has, by day, and how many of them existed already.

    Raises:
        LogError: the log has none of the days, a file is damaged, or a column has a wrong type.
    """
    files = {day: found for day, found in day_files(events).items() if day in days}
    if not files:
        raise LogError(f"{events}: no day from {min(days)} to {max(days)}")
    known = {day: partial for day, paths in files.items() if (partial := partials.known(day, paths))}
    lacking = [day for day in files if day not in known]

    def build(day: date) -> Partial:
        return partials.build(day, files[day])

    size = _size(file for day in lacking for file in files[day])
    local = len(lacking) == 1 and size < _LOCAL_BYTES
    built = map(build, lacking) if local else map_items(build, lacking, "days", progress, size=size)
    known |= {date.fromisoformat(partial.day): partial for partial in built}
    return [known[day] for day in sorted(known)], len(files) - len(lacking)


def day_counts(needed: int, made: Sequence[Partial], reused: int) -> dict[str, int]:
    """How many days were read, were reused from partials, and are missing from the log; see `aggregate_days`."""
    return {"days_read": len(made) - reused, "days_reused": reused, "days_missing": needed - len(made)}


def _row_counts(events: Path, window: Window, partials: Partials, made: Sequence[Partial]) -> dict[str, Any]:
    """Valid, malformed and duplicate rows of the days, and the folder of the malformed ones.

    Raises:
        LogError: no row is valid.
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
    """Write the buckets that are not in `done`, the number of users by bucket; returns the users of all buckets."""

    def write(number: int) -> int:
        return writer.write(run, number, window_sums(partials, number, made))

    lacking = [number for number in range(BUCKETS) if number not in done]
    size = _size(partials.path(date.fromisoformat(partial.day)) for partial in made)
    written: list[int] = list(map_items(write, lacking, "buckets", progress, size=size))
    return sum(done.values()) + sum(written)


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
