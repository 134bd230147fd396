"""Counts of the plain classes as Prometheus metrics, through Ray.

The classes count in plain numbers; once a second the differences are passed on, so the path of a request pays
nothing for being measured.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

_running: set[asyncio.Task[None]] = set()


class Exporter:
    """Hands the counts of a stage to Ray's metrics.

    A stage may have `counts()`, numbers that only grow, and `levels()`, numbers that go up and down, both by
    metric name. A stage without them has no metrics of its own.
    """

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._seen: dict[str, float] = {}

    def start(self, interval_s: float = 1.0) -> None:
        """Export every `interval_s` on the running loop."""
        task = asyncio.get_running_loop().create_task(self._run(interval_s))
        _running.add(task)
        task.add_done_callback(_running.discard)

    async def _run(self, interval_s: float) -> None:
        while True:
            self.export()
            await asyncio.sleep(interval_s)

    def export(self) -> None:
        """Pass on what has changed since the last call."""
        for name, value in self._read("counts").items():
            if name not in self._counters:
                self._counters[name] = Counter(f"switchboard_{name}", description=name.replace("_", " "))
            if value > self._seen.get(name, 0.0):
                self._counters[name].inc(value - self._seen.get(name, 0.0))
                self._seen[name] = value
        for name, value in self._read("levels").items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"switchboard_{name}", description=name.replace("_", " "))
            self._gauges[name].set(value)

    def _read(self, kind: str) -> Mapping[str, float]:
        reader = getattr(self._stage, kind, None)
        return reader() if reader else {}
