"""Fit what follows the text part: context weights, temperature and thresholds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from features.preprocess import Preprocessor
from models.bundle import TEMPERATURE_DECIMALS
from models.calibrate import (
    Bools,
    abstention_threshold,
    consistent_temperature,
    expected_calibration_error,
    fit_temperature,
    out_of_scope_score,
)
from models.classifier import TextClassifier
from models.context import ContextHead, Floats, softmax
from models.context_sampling import ContextPool, context_inputs, with_contexts
from models.data import OUT_OF_SCOPE, DataError, Example, Split
from models.fuse import CAPS, Trial, balanced, fit_context, scaled
from models.recipe import Recipe
from models.targets import one_hot
from models.testsets import by_kind

MISLEADING_DRAWS = 5
"""Misleading contexts for each clear validation row: one each leaves the scale of the context part to chance."""
IN_SCOPE_KEPT = 0.98
"""Share of the in-scope validation rows that the out-of-scope threshold lets through."""
FEW_ROUTED = 0.05
"""If a smaller share of the calibration rows is routed, there is a warning."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What follows the text part."""

    context: ContextHead
    temperature: float
    """What text and context logits together are divided by."""
    confidence_threshold: float
    """Lowest confidence that is routed, chosen for the wanted precision; 0 to 1."""
    out_of_scope_threshold: float
    """Highest out-of-scope score that is routed; 0 to 1."""
    calibration: dict[str, Any]
    """`rows`, those about a product; their expected calibration error `ece_before` and `ece_after` the temperature;
    `routed`, the share of them that both thresholds let through, and a `warning` where that is below `FEW_ROUTED`."""


def fit(parts: Split, names: Sequence[str], pre: Preprocessor, classifier: TextClassifier, recipe: Recipe) -> Fitted:
    """Fit the context part on training and validation rows, temperature and thresholds on the calibration rows.

    Args:
        names: the products, in the order of the classifier's outputs.

    Raises:
        DataError: see `require_contexts`.
    """
    require_contexts(parts)
    held = [row for rows in by_kind(parts.calibration or parts.validation).values() for row in rows]
    held_text = text_logits(held, pre, classifier)
    truth = one_hot(held, names, held_text.shape[1])
    context = _context(parts, names, pre, classifier, recipe, fit_temperature(held_text, truth))
    evidence = context.logits(context_inputs(pre, held))
    inside = np.array([e.product != OUT_OF_SCOPE for e in held])
    logits, truth = held_text[inside] + evidence[inside], truth[inside]
    temperature = round(consistent_temperature(logits, truth, len(names)), TEMPERATURE_DECIMALS)
    raw, correct = _answers(logits, 1.0, truth, len(names))
    confidence, _ = _answers(logits, temperature, truth, len(names))
    before, after = (expected_calibration_error(each, correct) for each in (raw, confidence))
    if after >= before:
        temperature, confidence, after = 1.0, raw, before
    out_of_scope = out_of_scope_score(held_text[inside], len(names), temperature)
    confidence_threshold = abstention_threshold(confidence, correct, recipe.precision)
    out_of_scope_threshold = float(np.quantile(out_of_scope, IN_SCOPE_KEPT))
    routed = (confidence >= confidence_threshold) & (out_of_scope <= out_of_scope_threshold)
    return Fitted(
        context,
        temperature,
        confidence_threshold,
        out_of_scope_threshold,
        {
            "rows": int(inside.sum()),
            "ece_before": round(before, 4),
            "ece_after": round(after, 4),
            **_routed(routed, recipe.precision),
        },
    )


def _routed(passed: Bools, precision: float) -> dict[str, Any]:
    """The entries `routed` and `warning` of `Fitted.calibration`, of (n,) whether a row passes both thresholds."""
    share = float(passed.mean())
    told: dict[str, Any] = {"routed": round(share, 4)}
    if share < FEW_ROUTED:
        told["warning"] = (
            f"{passed.sum()} of {len(passed)} calibration rows would be routed to a product, all others go to the "
            f"general queue: no larger share of the answers reaches --precision {precision:g}: give a lower one, or "
            "more rows"
        )
    return told


def require_contexts(parts: Split) -> None:
    """Refuse rows that the context part can be fitted on but not scaled.

    Raises:
        DataError: training rows have contexts, and no calibration row about a product has one.
    """
    learnt = sum(row.has_context for row in parts.train)
    held = parts.calibration or parts.validation
    if learnt and not any(row.has_context and row.product != OUT_OF_SCOPE for row in held):
        raise DataError(
            f"{learnt} training rows have contexts and no validation row about a product has one to weigh them by: "
            "give a larger --validation share, --validation-data with contexts, or no contexts at all"
        )


def _context(
    parts: Split,
    names: Sequence[str],
    pre: Preprocessor,
    classifier: TextClassifier,
    recipe: Recipe,
    temperature: float,
) -> ContextHead:
    """The context head whose worst loss over ambiguous and misled validation rows is smallest."""
    pool = ContextPool(parts.train)
    if not pool:
        return ContextHead.empty(names, classifier.outputs)
    rows = with_contexts(parts.train, pool, 2, recipe.seed)
    text, targets = text_logits(rows, pre, classifier), one_hot(rows, names, classifier.outputs)
    contexts = context_inputs(pre, rows)
    heads = [
        scaled(fit_context(names, text / temperature, contexts, targets, cap=cap), temperature)
        for cap in tqdm(CAPS, desc="context", unit="cap")
    ]
    return balanced(heads, trials(parts.calibration or parts.validation, names, pre, classifier, temperature))


def _answers(logits: Floats, temperature: float, truth: Floats, products: int) -> tuple[Any, Any]:
    """(n,) confidence in the best product, and whether it is right."""
    p = softmax(logits, temperature)[:, :products]
    return p.max(axis=1), p.argmax(axis=1) == truth.argmax(axis=1)


def trials(
    rows: Sequence[Example],
    names: Sequence[str],
    pre: Preprocessor,
    classifier: TextClassifier,
    temperature: float = 1.0,
) -> list[Trial]:
    """Ambiguous rows with their contexts, and clear rows with misleading contexts, to scale a head on.

    Rows with a context are ambiguous, those without one are clear. If every row has a context, as when usage is known
    for all customers, the rows to whose product the words alone give more than half of the probability are clear, and
    another product's context replaces their own. Other rows cannot show what a misleading context does: those that the
    words get wrong stay wrong with any head, and those that they get right by luck ought to follow the context.

    Args:
        temperature: of the text logits, for the probabilities.
    """
    inside = [row for row in rows if row.product != OUT_OF_SCOPE]
    draws = [by_kind(inside, seed) for seed in range(MISLEADING_DRAWS)]
    ambiguous = draws[0].get("ambiguous", [])
    misled = [row for sets in draws for row in sets.get("misleading", [])]
    if ambiguous and len(ambiguous) == len(inside):
        misled = _misled(_said_clearly(inside, names, text_logits(inside, pre, classifier), temperature), inside)
    made = []
    for members in (ambiguous, misled):
        if members:
            contexts = context_inputs(pre, members)
            truth = np.array([names.index(e.product) for e in members])
            made.append(Trial(text_logits(members, pre, classifier)[:, : len(names)], contexts, truth))
    return made


def _said_clearly(rows: Sequence[Example], names: Sequence[str], text: Floats, temperature: float) -> list[Example]:
    """The rows to whose product the words alone give more than half of the probability."""
    p = softmax(text[:, : len(names)], temperature)
    return [row for row, shares in zip(rows, p, strict=True) if shares[names.index(row.product)] > 0.5]


def _misled(clear: Sequence[Example], rows: Sequence[Example]) -> list[Example]:
    """Clear rows with contexts that settled another product elsewhere in the rows, each drawn several times."""
    pool = ContextPool(rows)
    drawn = [(row, pool.misleading(row, rng)) for rng in map(random.Random, range(MISLEADING_DRAWS)) for row in clear]
    return [misled for row, misled in drawn if misled != row]


def text_logits(examples: Sequence[Example], pre: Preprocessor, classifier: TextClassifier) -> Floats:
    """(n, outputs) text logits of examples, each distinct text once through the classifier."""
    distinct = {example.text: i for i, example in enumerate({e.text: e for e in examples}.values())}
    logits = classifier(pre.tokens(list(distinct)))
    return logits[[distinct[example.text] for example in examples]]
