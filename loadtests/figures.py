"""From the rows of a comparison to its figures: medians over rounds, their spread, and the targets of the project."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, Any]
Spread = tuple[float, float, float]
"""Median, smallest and largest over the rounds."""
MIB_LIMIT = 1.5 * 1024


def spread(values: Sequence[float]) -> Spread | None:
    """Median, smallest and largest; None of nothing."""
    return (round(median(values), 3), round(min(values), 3), round(max(values), 3)) if values else None


def over_rounds(rows: Sequence[Row], figure: str, **case: Any) -> dict[int, float]:
    """A figure by round, of the rows of one case."""
    return {
        row["round"]: row[figure]
        for row in rows
        if all(row.get(key) == value for key, value in case.items()) and row[figure] is not None
    }


def ratio(rows: Sequence[Row], figure: str, target: str, other: str, **case: Any) -> Spread | None:
    """One target's figure divided by another's, round by round."""
    ours, theirs = (over_rounds(rows, figure, target=name, **case) for name in (target, other))
    return spread([ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]])


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that the project wants to reach."""

    case: str
    unit: str
    limit: float
    at_least: bool
    measure: Callable[[Sequence[Row], Sequence[Row]], Spread | None]
    """Rows of loads and rows of memory to a figure."""

    def met(self, value: Spread) -> str:
        """`yes` where every round reached it, `median only`, or `no`."""
        middle, low, high = value
        if self._reached(low if self.at_least else high):
            return "yes"
        return "median only" if self._reached(middle) else "no"

    def _reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _throughput(target: str, other: str, texts: str, clients: int) -> Callable[..., Spread | None]:
    return lambda rows, memory: ratio(rows, "per_second", target, other, texts=texts, clients=clients)


def _alone(rows: Sequence[Row], memory: Sequence[Row]) -> Spread | None:
    return spread(list(over_rounds(rows, "p50_ms", target="graph", texts="unique", clients=1).values()))


def _alone_ratio(rows: Sequence[Row], memory: Sequence[Row]) -> Spread | None:
    return ratio(rows, "p50_ms", "graph_inline", "fastapi", texts="unique", clients=1)


def _tail(rows: Sequence[Row], memory: Sequence[Row]) -> Spread | None:
    return spread(list(over_rounds(rows, "p99_ms", target="graph", texts="unique", share="own half").values()))


def _at_rest(rows: Sequence[Row], memory: Sequence[Row]) -> Spread | None:
    return spread([row["service_mib"] + row["redis_mib"] for row in memory if row["target"] == "graph"])


GOALS = (
    Goal("all misses, 64 clients, (b) / FastAPI", "", 1.1, True, _throughput("graph", "fastapi", "unique", 64)),
    Goal("all misses, 64 clients, (c) / FastAPI", "", 1.4, True, _throughput("graph_inline", "fastapi", "unique", 64)),
    Goal("Zipf, 256 clients, (b) / FastAPI, no cache", "", 4, True, _throughput("graph", "fastapi", "zipf", 256)),
    Goal("Zipf, 256 clients, (b) / ceiling", "", 0.65, True, _throughput("graph", "ceiling", "zipf", 256)),
    Goal("one client, median, (b)", "ms", 2.5, False, _alone),
    Goal("one client, median, (c) / FastAPI", "", 1.15, False, _alone_ratio),
    Goal("p99 at half of the maximum, open loop, (b)", "ms", 15, False, _tail),
    Goal("memory at rest, Redis included, (b)", "MiB", MIB_LIMIT, False, _at_rest),
)


def goals(rows: Sequence[Row], memory: Sequence[Row]) -> list[dict[str, Any]]:
    """Each goal with its limit, its value (median, smallest, largest) and `met`, see `Goal.met`; None: not measured."""
    result = []
    for goal in GOALS:
        value = goal.measure(rows, memory)
        met = None if value is None else goal.met(value)
        sign = "≥" if goal.at_least else "≤"
        limit = f"{sign} {goal.limit:g} {goal.unit}".strip()
        result.append({"case": goal.case, "limit": limit, "unit": goal.unit, "value": value, "met": met})
    return result
