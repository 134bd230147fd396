"""When the classifier gets more replicas: by the batches that its replicas have under way.

Ray's own policy counts what comes through deployment handles; links (`deployments/links.py`) pass those by. So
each replica measures its own load, and the policy adds it up. Bounds, delays and smoothing factors stay Ray's.
"""

import time
from collections.abc import Callable
from typing import Any

from ray.serve.config import AutoscalingContext

BATCHES = "batches_in_flight"


class Concurrency:
    """The mean number of calls under way since the last reading; a context manager round each call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls = 0
        self._area = 0.0
        self._since = self._changed = clock()

    def __enter__(self) -> None:
        self._advance()
        self._calls += 1

    def __exit__(self, *raised: object) -> None:
        self._advance()
        self._calls -= 1

    def mean(self) -> float:
        """Read, and begin anew."""
        now = self._advance()
        span, area = now - self._since, self._area
        self._since, self._area = now, 0.0
        return area / span if span > 0 else float(self._calls)

    def _advance(self) -> float:
        now = self._clock()
        self._area += self._calls * (now - self._changed)
        self._changed = now
        return now


def by_batches_in_flight(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many replicas as keep `target_ongoing_requests` batches under way in each; a Ray Serve autoscaling policy."""
    measured = (context.aggregated_metrics or {}).get(BATCHES) or {}
    if not measured or context.config is None:
        return context.target_num_replicas, {}
    return sum(measured.values()) / context.config.target_ongoing_requests, {}
