"""Requests by status and by seconds, and the seconds of stages, counted in plain numbers."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

Metric = str | tuple[str, ...]
"""A metric's name, or its name with tags, each followed by its value."""
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STAGE_BOUNDS_S = (0.00025, 0.0005, *BOUNDS_S[:-1])


class Histogram:
    """Numbers of seconds by the smallest bound that they do not exceed."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._within = [0] * (len(bounds_s) + 1)
        self.seconds, self.n = 0.0, 0

    def note(self, seconds: float) -> None:
        self._within[bisect_left(self._bounds_s, seconds)] += 1
        self.seconds += seconds
        self.n += 1

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each bound, as Prometheus writes it, and how many do not exceed it."""
        return zip([*map(str, self._bounds_s), "+Inf"], accumulate(self._within), strict=True)


class RequestMeter:
    """A counter of statuses and a histogram of seconds, under the names that Prometheus gives a histogram's parts."""

    def __init__(self) -> None:
        self._statuses: Counter[int] = Counter()
        self._latency = Histogram(BOUNDS_S)

    def note(self, status: int, seconds: float) -> None:
        """One request is answered."""
        self._statuses[status] += 1
        self._latency.note(seconds)

    def counts(self) -> dict[Metric, float]:
        return {
            **{("requests_total", "status", str(status)): n for status, n in self._statuses.items()},
            **{("request_seconds_bucket", "le", bound): n for bound, n in self._latency.buckets()},
            "request_seconds_sum": self._latency.seconds,
            "request_seconds_count": self._latency.n,
        }


class StageMeter:
    """A histogram of each stage's seconds, as the `Server-Timing` header has them."""

    def __init__(self) -> None:
        self._stages: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(STAGE_BOUNDS_S))

    def note(self, milliseconds: Mapping[str, float]) -> None:
        """One batch, or one message, has spent so much in each stage; a stage without any did not take part."""
        for stage, spent in milliseconds.items():
            if spent:
                self._stages[stage].note(spent / 1000)

    def counts(self) -> dict[Metric, float]:
        stages = self._stages.items()
        return {
            **{("stage_seconds_bucket", "stage", of, "le", le): n for of, at in stages for le, n in at.buckets()},
            **{("stage_seconds_sum", "stage", of): at.seconds for of, at in stages},
            **{("stage_seconds_count", "stage", of): at.n for of, at in stages},
        }
