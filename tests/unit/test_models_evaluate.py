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
