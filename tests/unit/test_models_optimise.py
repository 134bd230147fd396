"""The training loop: batches of like lengths, repeatable training, the epoch that is kept."""

import random
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.preprocess import Ids
from models.networks import Floats, TextNet
from models.optimise import Check, Schedule, batches, optimise
from models.recipe import OptionError
from models.teacher import accuracy_on, soft_cross_entropy
from tests.unit.tiny import bert, logits, one_hot, weights

WINDOW = 16
sizes = st.integers(1, 5)
lengths = st.lists(st.integers(1, 9), max_size=200)
LABELS = [i % 3 for i in range(24)]
ROWS: list[Ids] = [np.array([2, 10 + label, 20 + i, 3], dtype=np.int32) for i, label in enumerate(LABELS)]
TARGETS = one_hot(LABELS)


def toy(epoch: int) -> tuple[list[Ids], Floats]:
    """Rows whose second token is their label."""
    return ROWS, TARGETS


def trained(seed: int, epochs: int = 3, drawn_before: int = 0) -> TextNet:
    net = bert()
    torch.manual_seed(drawn_before)
    optimise(net, toy, soft_cross_entropy, Schedule(epochs, 1e-3, batch_size=8, seed=seed), "toy")
    return net


def loss(net: TextNet) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits(net, ROWS)), torch.tensor(LABELS)))


@given(lengths, sizes, st.integers(0, 99))
def test_batches_hold_every_row_once(lengths: list[int], size: int, seed: int) -> None:
    made = list(batches(lengths, size, random.Random(seed)))
    assert sorted(chain.from_iterable(made)) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in made)


@given(lengths, sizes, st.integers(0, 99))
def test_batches_of_a_window_are_neighbours_by_length(lengths: list[int], size: int, seed: int) -> None:
    window = lengths[: WINDOW * size]
    made = [[window[i] for i in batch] for batch in batches(window, size, random.Random(seed))]
    assert list(chain.from_iterable(sorted(made))) == sorted(window)


@given(lengths, sizes, st.integers(0, 99))
def test_batches_of_a_seed_are_always_the_same(lengths: list[int], size: int, seed: int) -> None:
    first, second = (list(batches(lengths, size, random.Random(seed))) for _ in range(2))
    assert first == second


def test_batches_of_another_seed_come_in_another_order() -> None:
    first, second = (list(batches([5] * 100, 4, random.Random(seed))) for seed in (0, 1))
    assert first != second


def test_training_learns_a_problem_that_one_token_settles() -> None:
    net = trained(0, epochs=20)
    assert loss(net) < 0.2 < loss(bert())
    assert logits(net, ROWS).argmax(axis=1).tolist() == LABELS
    assert not net.training


def test_training_with_a_seed_is_repeatable() -> None:
    first, second, other = (weights(trained(seed, drawn_before=i)) for i, seed in enumerate((0, 0, 1)))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_epoch_asks_for_its_own_rows() -> None:
    asked: list[int] = []

    def epoch_data(epoch: int) -> tuple[list[Ids], Floats]:
        asked.append(epoch)
        return toy(epoch)

    optimise(bert(), epoch_data, soft_cross_entropy, Schedule(3, 1e-3), "toy")
    assert set(asked) == {0, 1, 2}


@pytest.mark.parametrize(
    ("figures", "patience", "epochs", "kept"),
    [
        ([0.5, 0.9, 0.3, 0.2, 1.0], 2, 4, 1),
        ([0.9, 0.9, 0.9, 0.9, 0.9], 1, 5, 4),
        ([0.1, 0.3, 0.2, 0.4, 0.3], 2, 5, 3),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5, 4),
        ([0.5, 0.47, 0.48, 0.49, 0.46], 1, 5, 4),
        ([0.5, 0.47, 0.44, 0.47, 0.44], 2, 5, 3),
    ],
)
def test_last_epoch_that_is_not_surely_worse_is_kept_and_training_stops_after_some_that_are(
    figures: list[float], patience: int, epochs: int, kept: int
) -> None:
    seen: list[torch.Tensor] = []

    def check(net: TextNet) -> Check:
        seen.append(weights(net).clone())
        return Check(figures[len(seen) - 1], 0.05)

    net = bert()
    optimise(net, toy, soft_cross_entropy, Schedule(5, 1e-3, patience=patience), "toy", check)
    assert len(seen) == epochs
    assert torch.equal(weights(net), seen[kept])
    assert not torch.equal(seen[kept], seen[kept - 1])


def test_training_whose_answers_are_no_numbers_stops_at_once() -> None:
    net, asked = bert(), []
    with torch.no_grad():
        net.head.weight.fill_(torch.inf)

    def epoch_data(epoch: int) -> tuple[list[Ids], Floats]:
        asked.append(epoch)
        return toy(epoch)

    with pytest.raises(OptionError, match="toy: training diverged, the outputs are NaN after epoch 1"):
        optimise(net, epoch_data, soft_cross_entropy, Schedule(3, 1e-3), "toy", accuracy_on((ROWS, TARGETS)))
    assert asked == [0]
