"""Teachers: which rows an epoch sees, what they learn, and how several are averaged."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.context import softmax
from models.networks import Floats, TextNet
from models.optimise import Schedule
from models.teacher import accuracy_on, average, predict, resampled, train_teacher, train_teachers
from tests.unit.tiny import PRODUCTS, bert, chats, learner, logits, one_hot, preprocessor, random_rows, weights

NAMES = sorted(PRODUCTS)
PRE = preprocessor()
columns = st.lists(st.integers(0, 2), min_size=1, max_size=30)
figures = st.floats(-30, 30, width=32)


def texts_and_targets(count: int, seed: int = 0) -> tuple[list[str], Floats]:
    rows = chats(count, seed)
    return [row.text for row in rows], one_hot([NAMES.index(row.product) for row in rows])


def make(seed: int) -> Callable[[], TextNet]:
    return lambda: bert(seed)


@given(columns, st.integers(0, 9))
def test_unbalanced_epoch_has_every_row_once(labels: list[int], seed: int) -> None:
    assert resampled(one_hot(labels), 0.0, random.Random(seed)) == list(range(len(labels)))


@given(columns, st.floats(0.1, 1.0), st.integers(0, 9))
def test_balanced_epoch_is_as_long_and_repeatable(labels: list[int], balance: float, seed: int) -> None:
    first, second = (resampled(one_hot(labels), balance, random.Random(seed)) for _ in range(2))
    assert first == second
    assert len(first) == len(labels)
    assert set(first) <= set(range(len(labels)))


def test_balance_evens_out_the_shares_of_the_labels() -> None:
    labels = [0] * 2700 + [1] * 270 + [2] * 30

    def shares(balance: float) -> list[float]:
        drawn = Counter(labels[i] for i in resampled(one_hot(labels), balance, random.Random(0)))
        return [drawn[label] / len(labels) for label in range(3)]

    assert shares(1.0) == pytest.approx([1 / 3] * 3, abs=0.04)
    wanted = np.array([2700, 270, 30]) ** 0.5
    assert shares(0.5) == pytest.approx(wanted / wanted.sum(), abs=0.04)


def test_teacher_learns_to_tell_the_products_of_new_messages() -> None:
    texts, targets = texts_and_targets(150)
    fresh, truth = texts_and_targets(60, seed=1)
    rows = PRE.tokens(fresh)
    schedule = Schedule(8, 4e-3, batch_size=16, head_rate=3.0)
    net = train_teacher(learner(), PRE, texts, targets, schedule, validation=(rows, truth))
    before, after = ((predict(one, rows)[0].argmax(axis=1) == truth.argmax(axis=1)).mean() for one in (learner(), net))
    assert before < 0.6
    assert after > 0.9


def test_teachers_differ_by_their_seeds() -> None:
    texts, targets = texts_and_targets(12)
    first, second = train_teachers(2, make(0), PRE, texts, targets, Schedule(1, 1e-3))
    assert not torch.equal(weights(first), weights(second))
    (alone,) = train_teachers(1, make(0), PRE, texts, targets, Schedule(1, 1e-3, seed=1))
    assert torch.equal(weights(alone), weights(second))


def test_teachers_with_fresh_heads_are_repeatable_by_their_seed() -> None:
    """Whatever the process drew by chance before: a head is made at random, too."""
    texts, targets = texts_and_targets(12)
    made = []
    for drawn_before in (1, 2):
        torch.manual_seed(drawn_before)
        encoder = bert(5).encoder
        torch.manual_seed(drawn_before)
        (net,) = train_teachers(1, partial(TextNet, encoder, 3), PRE, texts, targets, Schedule(1, 1e-3, seed=7))
        made.append(weights(net))
    assert torch.equal(*made)


def test_check_is_accuracy_and_then_the_surer_network() -> None:
    rows = random_rows(30)
    net = bert()
    truth = one_hot(predict(net, rows)[0].argmax(axis=1).tolist())
    check = accuracy_on((rows, truth))
    assert check is not None
    unsure, wrong = bert(), bert()
    with torch.no_grad():
        for one, factor in ((unsure, 0.1), (wrong, -1.0)):
            one.head.weight.mul_(factor)
            one.head.bias.mul_(factor)
    assert 0.95 < check(net).figure <= 1.0
    assert check(wrong).figure < 0.5 < check(unsure).figure < check(net).figure
    assert check(net).error == pytest.approx((31 / 32 * 1 / 32 / 30) ** 0.5)


def test_ambiguous_text_may_have_either_label() -> None:
    rows = random_rows(8)
    best = predict(bert(), rows)[0].argmax(axis=1)
    shared: Floats = (one_hot(best.tolist()) + one_hot(((best + 1) % 3).tolist())) * np.float32(0.5)
    check = accuracy_on((rows, shared))
    assert check is not None
    assert check(bert()).figure > 0.8


def test_without_validation_rows_there_is_no_check() -> None:
    assert accuracy_on(None) is None
    assert accuracy_on(([], np.zeros((0, 3), np.float32))) is None


@settings(max_examples=20)
@given(st.permutations(range(12)), st.integers(1, 20))
def test_prediction_of_a_row_does_not_depend_on_its_place(order: list[int], batch_size: int) -> None:
    net, rows = bert(), random_rows(12)
    wanted = logits(net, rows)
    found, embeddings = predict(net, [rows[i] for i in order], batch_size)
    assert np.allclose(found, wanted[order], atol=0.02 * np.abs(wanted).max())  # bfloat16 where it is fast
    assert embeddings.shape == (12, 32)


@given(arrays.arrays(np.float32, (3, 4, 5), elements=figures))
def test_average_is_the_log_of_the_mean_probability(stacked: Floats) -> None:
    mean = average(list(stacked))
    assert np.allclose(np.exp(mean), np.mean([softmax(part) for part in stacked], axis=0), atol=1e-5)
