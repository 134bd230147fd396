"""What the scale of the context part is chosen by."""

import numpy as np
import pytest

from features.preprocess import ContextInput
from models.context import ContextHead
from models.fuse import Trial

HEAD = ContextHead(("cards", "loans"), ("loan_page",), np.array([[0, 1]], np.float32), 0.5, 0.0, 0.0, 2.0)


@pytest.mark.parametrize(
    ("words", "screen", "truth", "lost"),
    [
        ([0.5, 0], "loan_page", 0, 1),
        ([3, 0], "loan_page", 1, 1),
        ([0.5, 0], "loan_page", 1, 0),
        ([0, 3], "loan_page", 0, 0),
        ([0, 3], "unknown", 0, 0),
    ],
    ids=["words outvoted", "context outvoted", "context right", "both wrong", "words wrong, no context"],
)
def test_a_row_is_lost_if_words_or_context_alone_get_it_right_and_both_together_do_not(
    words: list[float], screen: str, truth: int, lost: int
) -> None:
    trial = Trial(np.array([words], np.float32), [ContextInput((screen,), {})], np.array([truth]))
    assert trial.lost(HEAD) == lost
