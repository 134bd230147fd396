"""The default bundle on messages by eight authors of whom it has seen nothing: no text, no calibration row."""

from typing import Any

import pytest

from models.bundle import Bundle
from models.data import CORPUS, load
from models.evaluate import evaluate
from models.testsets import by_kind


@pytest.fixture(scope="module")
def figures(bundle: Bundle) -> dict[str, dict[str, Any]]:
    classifier = bundle.classifier()
    return {kind: evaluate(bundle, rows, classifier) for kind, rows in by_kind(load(CORPUS / "other_authors")).items()}


@pytest.mark.parametrize(("kind", "target"), [("clear", 0.95), ("ambiguous", 0.93), ("misleading", 0.92)])
def test_as_many_are_right_as_the_targets_ask(figures: dict[str, dict[str, Any]], kind: str, target: float) -> None:
    assert figures[kind]["n"] > 700
    assert figures[kind]["accuracy"] >= target
    assert figures[kind]["ece"] <= 0.03


def test_what_belongs_to_no_desk_is_told_apart(figures: dict[str, dict[str, Any]]) -> None:
    assert figures["clear"]["ood_n"] > 250
    assert figures["clear"]["ood_auroc"] >= 0.97
