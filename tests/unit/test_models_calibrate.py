"""Calibration and abstention against their definitions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibrate import (
    abstention_threshold,
    auroc,
    consistent_temperature,
    expected_calibration_error,
    fit_temperature,
    out_of_scope_score,
)
from models.context import Floats, softmax

scores = st.lists(st.integers(0, 6), min_size=1, max_size=20)


def floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float32)


@given(scores, scores)
def test_auroc_is_the_chance_that_a_positive_scores_above_a_negative(positive: list[int], negative: list[int]) -> None:
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(floats(positive), floats(negative)) == pytest.approx(sum(wins) / len(wins))


def test_auroc_of_the_extremes() -> None:
    assert auroc(floats([2, 3]), floats([0, 1])) == 1.0
    assert auroc(floats([0, 1]), floats([2, 3])) == 0.0
    assert auroc(floats([1, 1]), floats([1, 1, 1])) == 0.5


@pytest.mark.parametrize(
    ("confidence", "correct", "error"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.5, 0.5], [True, False], 0.0),
        ([0.9, 0.9, 0.3, 0.3], [True, False, True, False], 0.5 * 0.4 + 0.5 * 0.2),
        ([0.95, 0.55, 0.55, 0.55], [True, False, False, False], 0.25 * 0.05 + 0.75 * 0.55),
        ([0.05, 0.15], [True, False], 0.5 * 0.95 + 0.5 * 0.15),
        ([0.0], [False], 0.0),
        ([], [], 0.0),
    ],
)
def test_calibration_error_by_hand(confidence: list[float], correct: list[bool], error: float) -> None:
    got = expected_calibration_error(floats(confidence), np.array(correct, dtype=np.bool_), bins=10)
    assert got == pytest.approx(error, abs=1e-6)


@given(st.floats(0.3, 4.0), st.integers(0, 1000))
def test_temperature_recovers_the_one_that_made_the_labels(temperature: float, seed: int) -> None:
    logits = floats(np.random.default_rng(seed).normal(0, 3, (200, 5)))
    assert fit_temperature(logits, softmax(logits, temperature)) == pytest.approx(temperature, rel=0.02)


def test_temperature_stays_within_its_limits() -> None:
    logits = floats([[1, 0], [0, 1]])
    assert fit_temperature(logits, floats([[1, 0], [0, 1]])) == pytest.approx(0.2, rel=0.01)
    assert fit_temperature(logits, floats([[0, 1], [1, 0]])) == pytest.approx(5.0, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=25), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_abstention_threshold_is_the_lowest_confidence_that_is_precise(
    answers: list[tuple[int, bool]], precision: float
) -> None:
    confidence = floats([level / 10 for level, _ in answers])
    correct = np.array([right for _, right in answers], dtype=np.bool_)
    precise = [float(t) for t in confidence if correct[confidence >= t].mean() >= precision]
    assert abstention_threshold(confidence, correct, precision) == min(precise, default=1.0)


def test_out_of_scope_score_is_the_labelled_column_against_the_best_product() -> None:
    logits = floats([[4, 0, 0], [0, 0, 4], [1, 1, 1]])
    score = out_of_scope_score(logits, 2, 2.0)
    assert score == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**-2), 0.5])


def test_doubt_between_products_does_not_make_a_message_strange() -> None:
    score = out_of_scope_score(floats([[3, -9, 0], [3, 3, 0]]), 2, 1.0)
    assert score[0] == pytest.approx(score[1])


def test_out_of_scope_score_without_a_column_is_the_doubt_about_the_best_product() -> None:
    score = out_of_scope_score(floats([[9, 0], [0, 0]]), 2, 1.0)
    assert score == pytest.approx([1 / (1 + math.e**9), 0.5], abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0))
def test_consistent_temperature_makes_confidence_equal_accuracy(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(400, 5)) * 3 * scale).astype(np.float32)
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 400)]
    best = logits.argmax(axis=1)
    sure = rng.random(400) < 0.8
    targets[sure] = np.eye(5, dtype=np.float32)[best[sure]]
    confidence = softmax(logits, consistent_temperature(logits, targets, 5)).max(axis=1).mean()
    accuracy = targets[np.arange(400), best].mean()
    assert confidence == pytest.approx((accuracy * 400 + 1) / 402, abs=1e-3)


def test_without_rows_the_temperature_is_one() -> None:
    assert consistent_temperature(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 2) == 1.0


def test_a_faultless_validation_set_does_not_make_certainty() -> None:
    logits = floats([[2, 0], [0, 2]] * 10)
    temperature = consistent_temperature(logits, floats([[1, 0], [0, 1]] * 10), 2)
    assert softmax(logits, temperature).max() == pytest.approx(21 / 22, abs=1e-3)
