"""Drift figures in Prometheus text format, for the node exporter's textfile collector."""

from collections.abc import Iterator
from pathlib import Path

from features.drafts import replacing
from features.drift import Drift

_Samples = list[tuple[str, float]]
"""Pairs of a metric's labels, as `label_of` formats them, and its value."""


def write_metrics(path: Path, drift: Drift, now: float) -> None:
    """Write the figures atomically. The collector reads only files named `*.prom`.

    Args:
        now: seconds since 1970.
    """
    with replacing(path) as draft:
        draft.write_text("".join(_lines(drift, now)), encoding="utf-8")


def _lines(drift: Drift, now: float) -> Iterator[str]:
    shifts = [(label_of("feature", shift.feature), shift.psi) for shift in drift.shifts]
    outside = [(label_of("feature", name), float(count)) for name, count in drift.out_of_range.items()]
    metrics: list[tuple[str, str, _Samples]] = [
        ("psi", "Population stability index against the training data", [(k, v) for k, v in shifts if v is not None]),
        ("out_of_range_requests", "Requests with a value that no training row has", outside),
        ("requests", "Requests that were compared", [("", float(drift.requests))]),
        ("last_run_timestamp_seconds", "When these figures were computed", [("", now)]),
    ]
    for name, rate in drift.rates.items():
        if rate is not None:
            metrics.append((name, name.replace("_", " ").capitalize(), [("", rate)]))
    for name, explained, samples in metrics:
        yield f"# HELP switchboard_drift_{name} {explained}.\n# TYPE switchboard_drift_{name} gauge\n"
        yield from (f"switchboard_drift_{name}{labels} {value!r}\n" for labels, value in samples)


def label_of(name: str, value: str) -> str:
    """A label in text format: `{name="value"}`, escaped."""
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{name}="{escaped}"}}'
