"""What scales the context part: rows that need it and rows that it misleads, wherever the contexts are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.preprocess import Ids, Preprocessor
from models.bundle import PARTS, Bundle, write_bundle
from models.classifier import TextClassifier
from models.context import Floats, softmax
from models.context_sampling import context_inputs
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, Split, load, split
from models.evaluate import Scores, metrics
from models.fit import MISLEADING_DRAWS, fit, text_logits, trials
from models.testsets import HOLDOUT, by_kind, with_holdout
from tests.unit.tiny import PRODUCTS, chats, strange_chats, with_contexts
from tests.unit.tiny_run import Trained, trained

NAMES = tuple(sorted(PRODUCTS))
STRANGE_WITH_CONTEXT = Example("weather joke", OUT_OF_SCOPE, ("home",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.getbasetemp())


def with_usage(rows: Sequence[Example], names: Sequence[str] = NAMES) -> list[Example]:
    """The rows, those without a context with a use of another product than theirs."""
    return [
        row if row.has_context else replace(row, product_usage_60d={names[names.index(row.product) - 1]: 1})
        for row in rows
    ]


@pytest.mark.parametrize(
    ("learnt", "held"),
    [
        ([*chats(12), *with_contexts(12)], [*chats(12, seed=1), *with_contexts(3, seed=1)]),
        ([*chats(12), *strange_chats(3)], [*chats(12, seed=1), *with_contexts(3, seed=1)]),
        (with_contexts(12), with_usage(chats(12, seed=1))),
        (
            [*chats(12), *with_contexts(12), *strange_chats(3)],
            [*chats(12, seed=1), *with_contexts(12, seed=1), STRANGE_WITH_CONTEXT],
        ),
    ],
    ids=["some", "none in training", "everywhere", "out of scope"],
)
def test_contexts_may_be_where_they_like(run: Trained, learnt: list[Example], held: list[Example]) -> None:
    fitted = fit(Split(learnt, held, []), NAMES, run.bundle.preprocessor, run.bundle.classifier(), run.recipe)
    assert 0 < fitted.temperature < 10
    assert 0 <= fitted.out_of_scope_threshold <= 1
    assert fitted.calibration["rows"] > len([row for row in held if row.product != OUT_OF_SCOPE]) - 1


@pytest.mark.parametrize("held", [chats(12, seed=1), [*chats(12, seed=1), STRANGE_WITH_CONTEXT]])
def test_contexts_that_nothing_can_scale_are_refused(run: Trained, held: list[Example]) -> None:
    parts = Split([*chats(12), *with_contexts(9)], held, [])
    with pytest.raises(DataError, match="9 training rows have contexts and no validation row about a product has one"):
        fit(parts, NAMES, run.bundle.preprocessor, run.bundle.classifier(), run.recipe)


def test_calibration_rows_are_counted_without_those_of_no_product(run: Trained) -> None:
    parts = Split(chats(12), [*chats(9, seed=1), *strange_chats(4)], [])
    fitted = fit(parts, NAMES, run.bundle.preprocessor, run.bundle.classifier(), run.recipe)
    assert fitted.calibration["rows"] == 9


class CountedWords:
    """Answers as clearly as can be: a logit for each word of a product, and next to nothing out of scope."""

    outputs = len(NAMES) + 1

    def __init__(self, pre: Preprocessor) -> None:
        known = pre.tokenizer.get_vocab()
        self._ids = [[known[word] for word in PRODUCTS[name] if word in known] for name in NAMES]

    def __call__(self, rows: Sequence[Ids]) -> Floats:
        counts = [[float(np.isin(row, ids).sum()) for ids in self._ids] + [-3.0] for row in rows]
        return np.array(counts, dtype=np.float32)


def test_a_written_bundle_routes_what_was_chosen_however_well_separated(run: Trained, tmp_path: Path) -> None:
    pre, rows = run.bundle.preprocessor, chats(200, seed=1)
    counted: Any = CountedWords(pre)
    fitted = fit(Split(chats(30), rows, []), NAMES, pre, counted, run.recipe)
    assert fitted.out_of_scope_threshold < 1e-5
    assert fitted.calibration["routed"] > 0.9
    assert "warning" not in fitted.calibration
    written = write_bundle(
        tmp_path, {part: run.bundle.path / part for part in PARTS}, labels=NAMES, out_of_scope=True, preprocessor=pre,
        temperature=fitted.temperature, confidence_threshold=fitted.confidence_threshold,
        out_of_scope_threshold=fitted.out_of_scope_threshold, training={},
    )  # fmt: skip
    text = text_logits(rows, pre, counted)
    figures = metrics(written.manifest, Scores(text, np.zeros_like(text)), [row.product for row in rows])
    assert figures["coverage"] >= fitted.calibration["routed"]


@pytest.mark.parametrize(("wrong", "left_alone"), [(0, False), (2, True)])
def test_a_temperature_that_calibrates_no_better_is_left_alone(run: Trained, wrong: int, left_alone: bool) -> None:
    """Words give each answer 0.78, which is the share of seven right among nine."""
    pre, rows = run.bundle.preprocessor, chats(9, seed=1)
    held = [replace(row, product=NAMES[NAMES.index(row.product) - 1]) for row in rows[:wrong]] + rows[wrong:]
    counted: Any = CountedWords(pre)
    fitted = fit(Split(chats(30), held, []), NAMES, pre, counted, run.recipe)
    before, after = (fitted.calibration[key] for key in ("ece_before", "ece_after"))
    assert (fitted.temperature == 1, after == before) == (left_alone, left_alone)
    assert after <= before


def test_thresholds_that_let_next_to_nothing_through_are_recorded_with_a_warning(run: Trained) -> None:
    pre = run.bundle.preprocessor
    wrong = [replace(row, product=NAMES[NAMES.index(row.product) - 1]) for row in chats(30, seed=1)]
    counted: Any = CountedWords(pre)
    told = fit(Split(chats(30), wrong, []), NAMES, pre, counted, run.recipe).calibration
    assert told["routed"] == 0
    assert told["warning"].startswith("0 of 30 calibration rows would be routed to a product")


def test_context_is_scaled_on_several_misleading_contexts_of_each_clear_row(run: Trained) -> None:
    held = [*chats(9), *strange_chats(3), *with_contexts(6)]
    ambiguous, misled = trials(held, NAMES, run.bundle.preprocessor, run.bundle.classifier())
    assert (len(ambiguous.truth), len(misled.truth)) == (6, MISLEADING_DRAWS * 9)
    for context, column in zip(misled.contexts, misled.truth, strict=True):
        assert context.recent_screens[-1] != f"{NAMES[column]}_page"
    first = {misled.contexts[9 * draw].recent_screens for draw in range(MISLEADING_DRAWS)}
    assert len(first) > 1, "each draw gives the same row another context"


def test_where_every_row_has_a_context_those_are_misled_whose_words_are_sure(
    bundle: Bundle, classifier: TextClassifier
) -> None:
    """And none that the words get wrong, or right by a hair, as a third of those that need their context."""
    names, pre = bundle.manifest.labels, bundle.preprocessor
    rows = [row for row in load(HOLDOUT) if row.product != OUT_OF_SCOPE][::3]
    held = with_usage(rows, names)
    ambiguous, misled = trials(held, names, pre, classifier)
    assert len(ambiguous.truth) == len(held)
    columns = np.array([names.index(row.product) for row in held])
    p = softmax(text_logits(held, pre, classifier)[:, : len(names)])
    sure = p[np.arange(len(held)), columns] > 0.5
    lucky = (p.argmax(axis=1) == columns) & ~sure
    assert lucky.any()
    assert misled.truth.tolist() == columns[sure].tolist() * MISLEADING_DRAWS
    assert (misled.text_logits.argmax(axis=1) == misled.truth).all()
    own = context_inputs(pre, [row for row, said in zip(held, sure, strict=True) if said]) * MISLEADING_DRAWS
    assert all(context != before for context, before in zip(misled.contexts, own, strict=True))


def test_rows_that_have_all_one_context_mislead_nobody(run: Trained) -> None:
    held = [replace(row, recent_screens=("home",)) for row in chats(30)]
    (ambiguous,) = trials(held, NAMES, run.bundle.preprocessor, run.bundle.classifier())
    assert len(ambiguous.truth) == 30


def test_own_corpus_is_scaled_on_its_rows_without_a_context_whatever_their_words_say(
    bundle: Bundle, classifier: TextClassifier
) -> None:
    rows, names, pre = load(CORPUS), bundle.manifest.labels, bundle.preprocessor
    held = with_holdout(split(rows), CORPUS).calibration
    inside = [row for row in held if row.product != OUT_OF_SCOPE]
    ambiguous, misled = trials(held, names, pre, classifier, temperature=0.5)
    drawn = [row for seed in range(MISLEADING_DRAWS) for row in by_kind(inside, seed)["misleading"]]
    for trial, members in ((ambiguous, [row for row in inside if row.has_context]), (misled, drawn)):
        assert trial.contexts == context_inputs(pre, members)
        assert trial.truth.tolist() == [names.index(row.product) for row in members]
        assert np.array_equal(trial.text_logits, text_logits(members, pre, classifier)[:, : len(names)])
