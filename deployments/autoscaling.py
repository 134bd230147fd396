"""When the classifier gets more replicas: by the batches that its replicas have under way, and by how busy they are.

Ray's own policy counts what comes through deployment handles; links (`deployments/links.py`) pass those by. So
each replica measures its own load, and the policy adds it up. Bounds, delays and smoothing factors stay Ray's.
Batches alone would not do: one of few tokens is classified on the event loop, where the next cannot even be counted.
"""

import time
from collections.abc import Callable
from typing import Any

from ray.serve.config import AutoscalingContext

BATCHES, BUSY = "batches_in_flight", "busy_share"
MAX_BUSY = 0.8
"""Share of the time that a replica should have a batch under way, at the most."""


class Concurrency:
    """The calls under way since the last reading; a context manager round each call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls = 0
        self._area = self._busy = 0.0
        self._since = self._changed = clock()

    def __enter__(self) -> None:
        self._advance()
        self._calls += 1

    def __exit__(self, *raised: object) -> None:
        self._advance()
        self._calls -= 1

    def read(self) -> dict[str, float]:
        """Their mean number and the share of the time in which there was one, for Ray; begins anew."""
        now = self._advance()
        span, area, busy = now - self._since, self._area, self._busy
        self._since, self._area, self._busy = now, 0.0, 0.0
        if span <= 0:
            return {BATCHES: float(self._calls), BUSY: float(self._calls > 0)}
        return {BATCHES: area / span, BUSY: busy / span}

    def _advance(self) -> float:
        now = self._clock()
        self._area += self._calls * (now - self._changed)
        self._busy += (self._calls > 0) * (now - self._changed)
        self._changed = now
        return now


def by_batches_in_flight(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many replicas as keep `target_ongoing_requests` batches under way in each, and none busier than `MAX_BUSY`.

    A Ray Serve autoscaling policy.
    """
    measured = context.aggregated_metrics or {}
    batches, busy = (sum((measured.get(name) or {}).values()) for name in (BATCHES, BUSY))
    if not measured.get(BATCHES) or context.config is None:
        return context.target_num_replicas, {}
    return max(batches / context.config.target_ongoing_requests, busy / MAX_BUSY), {}
