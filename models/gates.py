"""The gate of a promotion: reasons why a bundle must not replace the present one; none means that it may."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle, BundleError, Manifest, intact_manifest
from models.data import OUT_OF_SCOPE, Example
from models.evaluate import evaluate

TOLERANCE = 0.005
_WATCHED = {"accuracy": 1, "ood_auroc": 1, "coverage": 10, "selective_accuracy": 4}
"""Figures that must not drop, and by how many tolerances they may: the last two also move with the thresholds."""
_BY_THRESHOLD = ("coverage", "selective_accuracy")
_ENOUGH = 500
"""Rows below which these two say little: on 120 ambiguous ones a retrain moves the coverage by 0.05 in one of four."""
_ROUNDING = 1e-9


def against(
    candidate: Bundle, present: Path | None, tolerance: float = TOLERANCE, examples: Sequence[Example] | None = None
) -> list[str]:
    """Reasons to keep the bundle in the folder `present`; if that is None, gone or damaged, those of `alone`.

    Compares the figures in the manifests, or, given examples, measures both bundles on them.
    """
    if present is None:
        return alone(candidate, examples)
    try:
        manifest = intact_manifest(present)
    except (BundleError, OSError):
        return alone(candidate, examples)
    if examples is None:
        return compare(candidate.manifest, manifest, tolerance)
    try:
        return measured(candidate, Bundle(present), examples, tolerance)
    except BundleError as error:
        return [f"they cannot be measured on the same rows: {error}"]


def alone(candidate: Bundle, examples: Sequence[Example] | None = None) -> list[str]:
    """Reasons against a bundle that nothing can be compared with: by its manifest, or measured on examples.

    Raises:
        BundleError: the bundle's network does not fit its labels.
    """
    if examples is None:
        return idle(candidate.manifest.metrics)
    return unmeasurable(candidate, examples) or idle({"the given rows": evaluate(candidate, examples)})


def idle(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A reason if nothing is routed, by the figures of each data set."""
    shares = [share for one in figures.values() if (share := _number(one, "coverage")) is not None]
    if any(shares) or not shares:
        return []
    return ["it routes nothing, coverage 0: all messages would go to the general queue"]


def compare(candidate: Manifest, present: Manifest, tolerance: float) -> list[str]:
    """Reasons by the figures in the manifests: labels lost, no data in common, or a figure that is worse.

    A figure is worse if it is lower by more than `tolerance`, of coverage ten and of selective accuracy four times
    that, on a data set that both were measured on; these two count on 500 rows and more.
    """
    shared = [name for name in present.metrics if _same_data(candidate.metrics.get(name, {}), present.metrics[name])]
    reasons = _labels_lost(candidate, present) + idle(candidate.metrics)
    if not shared:
        reasons.append("they were not measured on the same data: compare them with --data FILE")
    for name in shared:
        reasons += _worse(name, candidate.metrics[name], present.metrics[name], tolerance)
    return reasons


def measured(candidate: Bundle, present: Bundle, examples: Sequence[Example], tolerance: float) -> list[str]:
    """Reasons by measuring both bundles on the same rows now: those of products that the present one knows.

    Raises:
        BundleError: a bundle's network does not fit its labels.
    """
    reasons = _labels_lost(candidate.manifest, present.manifest)
    products = {*present.manifest.labels, OUT_OF_SCOPE}
    shared = [example for example in examples if example.product in products]
    if told := unmeasurable(candidate, examples):
        return reasons + told
    if all(example.product == OUT_OF_SCOPE for example in shared):
        return [*reasons, f"the rows tell nothing: {present.manifest.version} knows none of their products"]
    name, figures = "the given rows", evaluate(candidate, shared)
    return reasons + idle({name: figures}) + _worse(name, figures, evaluate(present, shared), tolerance)


def unmeasurable(bundle: Bundle, examples: Sequence[Example]) -> list[str]:
    """Reasons why a bundle cannot be measured on examples: labels that it does not know, or no product at all."""
    products = {example.product for example in examples} - {OUT_OF_SCOPE}
    if not products:
        return ["the rows tell nothing: none of them has a product as its label"]
    unknown = sorted(products - {*bundle.manifest.labels})
    return [f"the rows have labels that {bundle.version} does not know: {unknown[:10]}"] if unknown else []


def _labels_lost(candidate: Manifest, present: Manifest) -> list[str]:
    lost = sorted(set(present.labels) - set(candidate.labels))
    return [f"it lacks the labels {lost}, which clients would lose"] if lost else []


def _same_data(figures: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether figures are of the same rows, and there is one to compare."""
    told = "n" in before and any(_number(before, key) is not None for key in _WATCHED)
    return told and all(figures.get(key) == before.get(key) for key in ("n", "ood_n", "data"))


def _worse(name: str, figures: Mapping[str, Any], before: Mapping[str, Any], tolerance: float) -> list[str]:
    reasons = []
    for key, times in _WATCHED.items():
        allowed = times * tolerance
        new, old = _number(figures, key), _number(before, key)
        if old is None or (key in _BY_THRESHOLD and before.get("n", 0) < _ENOUGH):
            continue
        if new is None:
            reasons.append(f"{name}: no {key}, present {old:.4f}")
        elif not old - new <= allowed + _ROUNDING:  # which refuses with NaN as the tolerance, too
            reasons.append(f"{name}: {key} {new:.4f}, present {old:.4f}, tolerance {allowed:g}")
    return reasons


def _number(figures: Mapping[str, Any], key: str) -> float | None:
    value = figures.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
