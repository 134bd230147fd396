"""Counts of the plain classes as Prometheus metrics, through Ray.

The classes count in plain numbers; once a second the differences are passed on, so the path of a request pays
nothing for being measured.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from deployments.defects import log_defect
from deployments.request_meter import Metric

_running: set[asyncio.Task[None]] = set()


class Exporter:
    """Hands the counts of a stage to Ray's metrics.

    A stage may have `counts()`, numbers that only grow, and `levels()`, numbers that go up and down, both by
    `Metric`. A stage without them has no metrics of its own.
    """

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._seen: dict[Metric, float] = {}

    def start(self, interval_s: float = 1.0) -> None:
        """Export every `interval_s` on the running loop."""
        task = asyncio.get_running_loop().create_task(self._run(interval_s))
        _running.add(task)
        task.add_done_callback(_running.discard)

    async def _run(self, interval_s: float) -> None:
        while True:
            try:
                self.export()
            except Exception as error:
                log_defect(f"metrics of {type(self._stage).__name__}", error)
            await asyncio.sleep(interval_s)

    def export(self) -> None:
        """Pass on what has changed since the last call."""
        for metric, value in self._read("counts").items():
            name, tags = _parts(metric)
            if name not in self._counters:
                self._counters[name] = Counter(f"switchboard_{name}", name.replace("_", " "), tuple(tags))
            if value > self._seen.get(metric, 0.0):
                self._counters[name].inc(value - self._seen.get(metric, 0.0), tags)
                self._seen[metric] = value
        for metric, value in self._read("levels").items():
            name, tags = _parts(metric)
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"switchboard_{name}", name.replace("_", " "), tuple(tags))
            self._gauges[name].set(value, tags)

    def _read(self, kind: str) -> Mapping[Metric, float]:
        reader = getattr(self._stage, kind, None)
        return reader() if reader else {}


def _parts(metric: Metric) -> tuple[str, dict[str, str]]:
    if isinstance(metric, str):
        return metric, {}
    name, *tags = metric
    return name, dict(zip(tags[::2], tags[1::2], strict=True))
