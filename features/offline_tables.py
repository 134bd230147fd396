"""The results of `skew` and `drift` as text tables."""

import json
from collections.abc import Iterator

from features.drift import Drift
from features.schema import rfc3339
from features.skew import Mismatch, Report


def skew_table(report: Report) -> Iterator[str]:
    """Mismatches by feature, with examples: ids and values, never texts."""
    yield f"{'feature':<20}{'mismatches':>12}{'share':>10}"
    for feature, count in report.by_feature.items():
        yield f"{feature:<20}{count:>12,}{count / max(report.compared, 1):>10.2%}"
        yield from (_example(mismatch) for mismatch in report.examples.get(feature, []))
    if report.unverifiable_usage:
        whose = f"{report.unverifiable_usage:,} of {report.compared:,} requests"
        yield f"usage not compared for {whose}: they read a run that `materialize` did not make, such as the demo's"
    for run in report.changed_runs:
        yield f"usage run {run}: made of other events than the usage log holds now, or with another version of polars"


def drift_table(drift: Drift) -> Iterator[str]:
    """The shift of each feature and its reading, then rates and counts."""
    yield f"{'feature':<40}{'PSI':>8}  {'reading':<16}{'training':>10}{'served':>10}"
    for shift in drift.shifts:
        index = "-" if shift.psi is None else f"{shift.psi:.3f}"
        rows = f"{shift.training_rows:>10,}{shift.served_rows:>10,}"
        yield f"{shift.feature:<40}{index:>8}  {shift.reading:<16}{rows}"
    yield "PSI below 0.1: stable; up to 0.25: moderate shift; above: large shift (Siddiqi, 2006)"
    for name, rate in drift.rates.items():
        yield f"{name.replace('_', ' '):<40}{'-' if rate is None else f'{rate:.2%}':>8}"
    for name, count in drift.out_of_range.items():
        yield f"{f'requests out of range: {name}':<40}{count:>8,}"


def _example(mismatch: Mismatch) -> str:
    at = rfc3339(mismatch.features_at, "milliseconds")
    served, expected = json.dumps(mismatch.served), json.dumps(mismatch.expected)
    return f"  {mismatch.request_id} of {mismatch.user_id} at {at}: served {served}, expected {expected}"
