"""Figures of labelled chats, and the sets that they are measured on."""

import numpy as np
import pytest

from models.bundle import Bundle
from models.context import Floats
from models.data import OUT_OF_SCOPE, Example
from models.evaluate import Scores, metrics
from models.judge import compared
from models.testsets import by_kind, text_sets


def by_context(bundle: Bundle, *told: tuple[int, int | None]) -> float | None:
    """The share that context alone gets right, of rows with a true product and one that the context is for."""
    logits: Floats = np.zeros((len(told), bundle.manifest.outputs), dtype=np.float32)
    for row, (_, shown) in zip(logits, told, strict=True):
        if shown is not None:
            row[shown] = 1
    products = [bundle.manifest.labels[true] for true, _ in told]
    share: float | None = metrics(bundle.manifest, Scores(logits, logits), products)["accuracy_context_only"]
    return share


def test_a_context_that_tells_nothing_is_no_answer(bundle: Bundle) -> None:
    assert by_context(bundle, (0, None), (1, None)) is None
    assert by_context(bundle, (0, None), (0, 0), (1, 1), (1, 2)) == 0.5
    assert by_context(bundle, (0, 1)) == 0.0


def test_figures_by_hand(bundle: Bundle) -> None:
    """Chances of three products and of none; the first row is too strange by its words, one is too unsure."""
    labels = ("cards", "loans", "savings")
    given = {"temperature": 2.0, "confidence_threshold": 0.5, "out_of_scope_threshold": 0.5}
    rows = [
        ("cards", (0.01, 0.03, 0.01, 0.95)),
        ("cards", (0.7, 0.1, 0.1, 0.1)),
        ("cards", (0.2, 0.1, 0.65, 0.05)),
        ("loans", (0.1, 0.4, 0.3, 0.2)),
        ("loans", (0.1, 0.7, 0.1, 0.1)),
        (OUT_OF_SCOPE, (0.1, 0.1, 0.1, 0.7)),
        (OUT_OF_SCOPE, (0.6, 0.1, 0.1, 0.2)),
        (OUT_OF_SCOPE, (0.6, 0.2, 0.15, 0.05)),
    ]
    words: Floats = 2 * np.log(np.array([chances for _, chances in rows], np.float32))
    context = np.zeros_like(words)
    context[0, 0] = 2 * np.log(200)
    manifest = bundle.manifest.model_copy(update={"labels": labels, "out_of_scope": True, **given})
    figures = metrics(manifest, Scores(words, context), [product for product, _ in rows])
    assert figures.pop("ece") > 0
    assert figures == {
        "n": 5,
        "accuracy": 0.8,
        "accuracy_text_only": 0.6,
        "accuracy_context_only": 0.2,
        "f1": {"cards": 0.8, "loans": 1.0},
        "macro_f1": 0.9,
        "coverage": 0.6,
        "selective_accuracy": 0.6667,
        "ood_n": 3,
        "ood_auroc": 0.5333,
        "ood_routed": 0.6667,
    }


def test_rows_that_no_context_misleads_are_not_among_the_misled() -> None:
    needy, clear = Example("limit", "cards", ("card_page",)), [Example("my card", "cards"), Example("my loan", "loans")]
    sets = by_kind([needy, *clear])
    assert [row.text for row in sets["misleading"]] == ["my loan"]
    assert sets["misleading"][0].recent_screens == ("card_page",)
    assert "misleading" not in by_kind([needy, clear[0]])


@pytest.mark.parametrize("strange", [[], [Example("a song", OUT_OF_SCOPE)]])
def test_where_every_row_has_a_context_the_words_are_measured_without_it(strange: list[Example]) -> None:
    needy = [Example("limit", "cards", ("card_page",)), Example("repay", "loans", (), {"loans": 1})]
    assert text_sets(by_kind([*needy, *strange])) == {"ambiguous": needy}
    clear = Example("my card", "cards")
    assert text_sets(by_kind([*needy, *strange, clear])) == {"clear": [clear, *strange]}


def test_a_manifest_that_says_otherwise_is_told_by_the_figures_that_differ() -> None:
    report = {"n": 565, "accuracy": 0.8159, "ece": 0.0775}
    assert compared(report, dict(report)) == "as in the manifest"
    assert compared(report, report | {"ece": 0.0774}) == "the manifest says ece 0.0774"
    assert compared(report, {}) == "not in the manifest"
