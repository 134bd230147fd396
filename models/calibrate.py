"""Calibration and abstention: temperature, expected calibration error, thresholds, out-of-scope score."""

from typing import cast

import numpy as np
import numpy.typing as npt

from models.context import Floats, softmax

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def fit_temperature(logits: Floats, targets: Floats) -> float:
    """The temperature that minimises cross-entropy (Guo et al., 2017), by golden-section search in its log.

    Args:
        logits: (n, outputs); targets: (n, outputs) label distributions.
    """

    def loss(log_temperature: float) -> float:
        p = softmax(logits, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.clip(p, 1e-9, None))).sum(axis=1).mean())

    low, high, ratio = np.log(0.2), np.log(5.0), (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


def consistent_temperature(logits: Floats, targets: Floats, products: int) -> float:
    """The temperature by which the mean confidence equals the share of right answers (Clarté et al., 2023).

    Cross-entropy would choose a higher one where a few rows are wrong beyond doubt, such as mislabelled ones, and
    leave all other answers too modest.

    Args:
        logits: (n, outputs); targets: (n, outputs) label distributions; products: the columns that can be answered.

    Returns 1.0 without rows.
    """
    if not len(logits):
        return 1.0
    answers = logits[:, :products].argmax(axis=1)
    right = float(targets[np.arange(len(targets)), answers].sum())
    wanted = (right + 1) / (len(targets) + 2)
    low, high = np.log(0.05), np.log(20.0)
    for _ in range(40):
        middle = (low + high) / 2
        confidence = softmax(logits, float(np.exp(middle)))[:, :products].max(axis=1).mean()
        low, high = (middle, high) if confidence > wanted else (low, middle)
    return float(np.exp((low + high) / 2))


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equal-width bins, weighted by their share (Naeini et al., 2015)."""
    if not len(confidence):
        return 0.0
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = [
        abs(correct[index == b].mean() - confidence[index == b].mean()) * (index == b).mean()
        for b in range(bins)
        if (index == b).any()
    ]
    return float(sum(gaps))


def abstention_threshold(confidence: Floats, correct: Bools, precision: float) -> float:
    """The lowest confidence at and above which answers are right with the wanted precision.

    Returns 1.0 when no threshold reaches it: then only a confidence that float32 rounds to 1 is routed.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    running = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    reached = np.flatnonzero((running >= precision) & last_of_equals)
    return float(ordered[reached[-1]]) if len(reached) else 1.0


def out_of_scope_score(text_logits: Floats, products: int, temperature: float) -> Floats:
    """(n,) scores, higher for messages about no product, from the words alone.

    With a labelled out-of-scope column, its probability against that of the best product alone; otherwise the
    probability not given to the best product (Hendrycks & Gimpel, 2017).
    """
    return out_of_scope_share(softmax(text_logits, temperature), products)


def out_of_scope_share(words: Floats, products: int) -> Floats:
    """`out_of_scope_score` from (n, outputs) probabilities by the words alone."""
    best = words[:, :products].max(axis=1)
    strange = words[:, products:]
    return cast(Floats, strange[:, 0] / (strange[:, 0] + best) if strange.shape[1] else 1 - best)


def auroc(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half."""
    scores = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
