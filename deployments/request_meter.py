"""Requests by status and by seconds, counted in plain numbers."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

Metric = str | tuple[str, str, str]
"""A metric's name, or its name with a tag and the tag's value."""
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class RequestMeter:
    """A counter of statuses and a histogram of seconds, under the names that Prometheus gives a histogram's parts."""

    def __init__(self) -> None:
        self._statuses: Counter[int] = Counter()
        self._within = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def note(self, status: int, seconds: float) -> None:
        """One request is answered."""
        self._statuses[status] += 1
        self._within[bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds += seconds

    def counts(self) -> dict[Metric, float]:
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        return {
            **{("requests_total", "status", str(status)): n for status, n in self._statuses.items()},
            **{
                ("request_seconds_bucket", "le", bound): n
                for bound, n in zip(bounds, accumulate(self._within), strict=True)
            },
            "request_seconds_sum": self._seconds,
            "request_seconds_count": self._statuses.total(),
        }
