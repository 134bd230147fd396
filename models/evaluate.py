"""How good a bundle is on labelled chats; the served parts, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bundle import Bundle, Manifest
from models.calibrate import auroc, expected_calibration_error, out_of_scope_score
from models.classifier import TextClassifier
from models.context import Floats, probabilities
from models.context_sampling import context_inputs
from models.data import OUT_OF_SCOPE, DataError, Example, digest


@dataclass(frozen=True, slots=True)
class Scores:
    """Logits of n examples: (n, outputs) of the text part and of the context part."""

    text: Floats
    context: Floats


def score(bundle: Bundle, classifier: TextClassifier, examples: Sequence[Example]) -> Scores:
    """Run the bundle's two parts over examples."""
    pre = bundle.preprocessor
    text = classifier(pre.tokens([example.text for example in examples]))
    return Scores(text, bundle.context.logits(context_inputs(pre, examples)))


def evaluate(bundle: Bundle, examples: Sequence[Example], classifier: TextClassifier | None = None) -> dict[str, Any]:
    """Metrics of a bundle on labelled chats, see `metrics`, and `data`, a hash of the chats.

    Raises:
        DataError: a label that the bundle does not know.
    """
    return measure(bundle, examples, classifier or bundle.classifier())[1]


def measure(bundle: Bundle, examples: Sequence[Example], classifier: TextClassifier) -> tuple[Scores, dict[str, Any]]:
    """The logits of labelled chats, and what `evaluate` makes of them.

    Raises:
        DataError: a label that the bundle does not know.
    """
    unknown = {example.product for example in examples} - {*bundle.manifest.labels, OUT_OF_SCOPE}
    if unknown:
        raise DataError(f"labels unknown to bundle {bundle.version}: {sorted(unknown)[:10]}")
    scores = score(bundle, classifier, examples)
    figures = metrics(bundle.manifest, scores, [example.product for example in examples])
    return scores, figures | {"data": digest(examples)[:12]}


def metrics(manifest: Manifest, scores: Scores, products: Sequence[str]) -> dict[str, Any]:
    """Metrics over in-scope rows, plus AUROC of out-of-scope against in-scope rows.

    Returns:
        n, accuracy, accuracy_text_only, accuracy_context_only (rows whose context logits are all equal count as wrong;
        null if all rows are such), macro_f1, per-product f1, ece (of the confidence in the answered product), coverage
        and selective_accuracy (of answers that are routed rather than sent to the general queue), ood_n, ood_auroc
        (null without such rows), ood_routed (the share of out-of-scope rows that were routed to a desk all the same).
    """
    k = len(manifest.labels)
    inside = np.array([product != OUT_OF_SCOPE for product in products])
    p = probabilities(scores.text, scores.context, manifest.temperature)
    best = p[:, :k].argmax(axis=1)
    confidence = p[np.arange(len(p)), best]
    out_of_scope = out_of_scope_score(scores.text, k, manifest.temperature)
    routed = manifest.routes(confidence, out_of_scope)
    report: dict[str, Any] = {"n": int(inside.sum())}
    if inside.any():
        column = {label: i for i, label in enumerate(manifest.labels)}
        truth = np.array([column[product] for product in products if product != OUT_OF_SCOPE])
        correct = best[inside] == truth
        f1 = _f1(best[inside], truth, manifest.labels)
        report |= {
            "accuracy": float(correct.mean()),
            "accuracy_text_only": float((scores.text[inside, :k].argmax(axis=1) == truth).mean()),
            "accuracy_context_only": _by_context(scores.context[inside, :k], truth),
            "macro_f1": float(np.mean(list(f1.values()))),
            "f1": f1,
            "ece": expected_calibration_error(confidence[inside], correct),
            "coverage": float(routed[inside].mean()),
            "selective_accuracy": float(correct[routed[inside]].mean()) if routed[inside].any() else None,
        }
    report["ood_n"] = int((~inside).sum())
    both = inside.any() and not inside.all()
    report["ood_auroc"] = auroc(out_of_scope[~inside], out_of_scope[inside]) if both else None
    report["ood_routed"] = float(routed[~inside].mean()) if not inside.all() else None
    return _rounded(report)


def _by_context(logits: Floats, truth: np.ndarray[Any, Any]) -> float | None:
    """The share of rows that (n, products) context logits alone get right; None if those of each row are all equal."""
    telling = np.ptp(logits, axis=1) > 0
    return float((telling & (logits.argmax(axis=1) == truth)).mean()) if telling.any() else None


def _f1(answers: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], labels: Sequence[str]) -> dict[str, float]:
    """F1 of each label that occurs in the truth."""
    result = {}
    for i, label in enumerate(labels):
        if (truth == i).any():
            hits = int(((answers == i) & (truth == i)).sum())
            result[label] = 2 * hits / int((answers == i).sum() + (truth == i).sum())
    return result


def _rounded(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else _rounded(value) if isinstance(value, dict) else value
        for key, value in report.items()
    }
