"""What `materialize` costs on given files, beside plain polars on the same files, in one run.

    round: plain polars │ aggregation without Redis │ full run, no partials yet │ next day's run

The full run's window ends a day before the log does, so that there is a next day. Ray's start is left out and told
apart. Runs have names of their own, are not published, and what they wrote is deleted again.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from features.batch import Window, aggregate_days, materialize
from features.event_log import day_files
from features.parquet_columns import LogError
from features.partials import BUCKETS, Partials
from features.ray_session import map_items, session
from features.usage_writer import UsageWriter
from features.window_sums import window_sums

_LOOK_EVERY_S = 0.1
_PLAIN = """
import json, resource, sys, time
import polars as pl
files, seconds = json.load(sys.stdin), []
for engine in ["in-memory", "streaming"] * 2:
    started = time.perf_counter()
    pl.scan_parquet(files).group_by("user_id", "product").agg(pl.len()).collect(engine=engine)
    seconds.append(time.perf_counter() - started)
print(json.dumps([min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def bench(
    events: Path, redis_url: str, *, rounds: int = 3, cpus: int = 2, folder: Path | None = None
) -> dict[str, Any]:
    """Start Ray on this machine and measure all four in turn, `rounds` times.

    Args:
        events: a usage log of two days or more.
        redis_url: a server, which has to hold the values of one run.
        cpus: of Ray; plain polars has as many threads.
        folder: where partials are kept meanwhile; default: the system's temporary folder.

    Returns:
        Medians and all rounds in seconds, ratios of the medians, and peak memory in MiB (resident, summed over the
        processes; that of plain polars, of its own).

    Raises:
        LogError: the log has less than two days, or cannot be read.
        redis.RedisError: Redis does not take the values.
    """
    UsageWriter(redis_url).present()
    os.environ.update(RAY_worker_niceness="0")  # by default workers yield to plain polars, and to Redis
    started = time.perf_counter()
    with session(cpus=cpus):
        ray_s = time.perf_counter() - started
        return {**measure(events, redis_url, rounds, cpus, folder), "ray_start_s": round(ray_s, 2), "cpus": cpus}


def measure(events: Path, redis_url: str, rounds: int, threads: int, folder: Path | None = None) -> dict[str, Any]:
    """`bench` on the Ray that was started."""
    files = day_files(events)
    first, last = min(files), max(files)
    if first == last:
        raise LogError(f"{events}: has only {first}, expected two days or more")
    window, writer = Window(last, (last - first).days), UsageWriter(redis_url)
    plain = [str(file) for day, found in files.items() if day != last for file in found]
    rounds_s, summary, polars_kib = [], dict[str, Any](), 0
    with watched_memory() as peaks:
        for _ in range(rounds):
            polars_s, polars_kib = _plain(plain, threads)
            with tempfile.TemporaryDirectory(dir=folder) as kept:
                aggregation_s = _aggregate(events, window, Partials(Path(kept) / "aggregation"))
                summary, next_day_s = _run_twice(events, window, writer, Partials(Path(kept) / "run"))
            times = {"polars_s": polars_s, "aggregation_s": aggregation_s}
            rounds_s.append({**times, "full_s": summary["seconds"], "next_day_s": next_day_s})
    medians = {name: statistics.median(times[name] for times in rounds_s) for name in rounds_s[0]}
    return {
        **{name: summary[name] for name in ("window", "events", "users")},
        **_rounded(medians),
        "aggregation_over_polars": round(medians["aggregation_s"] / medians["polars_s"], 2),
        "full_over_next_day": round(medians["full_s"] / medians["next_day_s"], 2),
        "rounds": [_rounded(times) for times in rounds_s],
        "peak_mib": {**{name: size >> 20 for name, size in peaks.items()}, "polars": polars_kib >> 10},
    }


@contextmanager
def watched_memory() -> Iterator[dict[str, int]]:
    """Peaks of the resident memory of this process, of Ray's workers, of Ray's other processes, and of all at once."""
    peaks = {"driver": 0, "workers": 0, "ray": 0, "all": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            now = _resident()
            now["all"] = sum(now.values())
            peaks.update({name: max(peaks[name], size) for name, size in now.items()})

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


@contextmanager
def own_run(writer: UsageWriter) -> Iterator[str]:
    """A prefix for the name of a run, which no other has; what is written under it is deleted in the end.

    Raises:
        redis.NoPermissionError: the user may not delete it; nothing was written.
    """
    prefix = f"bench-{uuid4().hex[:12]}-"
    writer.remove(prefix)
    try:
        yield prefix
    finally:
        writer.remove(prefix)


def _resident() -> dict[str, int]:
    this = psutil.Process()
    sizes = {"driver": this.memory_info().rss, "workers": 0, "ray": 0}
    for child in this.children(recursive=True):
        with suppress(psutil.Error):
            name = " ".join(child.cmdline())
            if not name.endswith("-c " + _PLAIN):
                sizes["workers" if name.startswith("ray::") else "ray"] += child.memory_info().rss
    return sizes


def _plain(files: list[str], threads: int) -> tuple[float, int]:
    """Seconds of the faster engine of polars, when warm, and its peak memory in KiB."""
    environment = os.environ | {"POLARS_MAX_THREADS": str(threads)}
    arguments = [sys.executable, "-c", _PLAIN]
    done = subprocess.run(
        arguments, input=json.dumps(files), env=environment, text=True, stdout=subprocess.PIPE, check=True
    )
    seconds, kib = json.loads(done.stdout)
    return seconds, kib


def _aggregate(events: Path, window: Window, partials: Partials) -> float:
    started = time.perf_counter()
    made, _ = aggregate_days(events, window.dates(), partials, progress=False)

    def users(number: int) -> int:
        return window_sums(partials, number, made)["user_id"].n_unique()

    list(map_items(users, range(BUCKETS), "buckets", progress=False))
    return time.perf_counter() - started


def _run_twice(events: Path, window: Window, writer: UsageWriter, partials: Partials) -> tuple[dict[str, Any], float]:
    """The summary of a run without partials, and the seconds of the next day's run."""
    full, next_day = (
        _run(events, Window(day, window.days), writer, partials)
        for day in (window.as_of, window.as_of + timedelta(days=1))
    )
    return full, next_day["seconds"]


def _run(events: Path, window: Window, writer: UsageWriter, partials: Partials) -> dict[str, Any]:
    with own_run(writer) as prefix:
        return materialize(events, window, writer, partials, publish=False, prefix=prefix, progress=False)


def _rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 2) for name, seconds in times.items()}
