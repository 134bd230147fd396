"""Prints what a headless locust run measured: a table, then one JSON line."""

import csv
import json
import sys
from pathlib import Path

from loadtests.conditions import machine

_FIGURES = {
    "requests": "Request Count",
    "failures": "Failure Count",
    "per_second": "Requests/s",
    "p50_ms": "50%",
    "p95_ms": "95%",
    "p99_ms": "99%",
}


def summarise(stats: Path) -> dict[str, dict[str, float]]:
    """Locust's `*_stats.csv` by route: requests, failures, requests/s and percentiles in milliseconds.

    Routes without a request, which have no percentiles, are left out.
    """
    with stats.open(newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    return {
        name: {figure: round(float(row[column]), 1) for figure, column in _FIGURES.items()}
        for name, row in rows.items()
        if int(row["Request Count"])
    }


def main() -> int:
    routes = summarise(Path(sys.argv[1]))
    if not routes:
        print("error: no request was answered or failed in this time: give it more, or more users", file=sys.stderr)
        return 1
    print(f"{'route':<24}" + "".join(f"{figure:>12}" for figure in _FIGURES))
    for name, figures in routes.items():
        print(f"{name:<24}" + "".join(f"{value:>12g}" for value in figures.values()))
    print(json.dumps({"machine": machine(), "routes": routes}))
    return 1 if routes["Aggregated"]["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
