"""The population stability index and its reading."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.psi import by_chance, edges, histogram, psi, reading
from features.shifts import shift_of_numbers

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any)
pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any)] * 2)
)


@given(counts, st.integers(1, 50))
def test_is_zero_between_equal_distributions(row: list[int], times: int) -> None:
    assert psi(row, [count * times for count in row]) == pytest.approx(0, abs=1e-12)


@given(pairs)
def test_is_finite_symmetric_and_not_negative(pair: tuple[list[int], list[int]]) -> None:
    index = psi(*pair)
    assert 0 <= index < math.inf
    assert index == pytest.approx(psi(pair[1], pair[0]))


@given(pairs)
def test_is_positive_between_other_distributions(pair: tuple[list[int], list[int]]) -> None:
    one, other = (np.array(row) / sum(row) for row in pair)
    assert (psi(*pair) > 1e-12) == (np.abs(one - other).max() > 1e-6)


def test_is_the_sum_over_the_bins() -> None:
    assert psi([50, 50], [80, 20]) == pytest.approx(0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5))
    assert psi([50, 50, 0], [80, 20, 0]) == psi([50, 50], [80, 20])
    assert psi([100, 0], [50, 50]) == pytest.approx(-0.5 * math.log(0.5) + 0.495 * math.log(0.5 / 0.005))


@pytest.mark.parametrize(("bins", "rows"), [(2, 300), (10, 300), (10, 3000), (40, 2000)])
def test_chance_is_what_one_sample_in_a_hundred_exceeds(bins: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(bins, 20.0))
    drawn = [psi(rng.multinomial(rows, shares), rng.multinomial(2 * rows, shares)) for _ in range(3000)]
    exceeded = np.mean(np.array(drawn) > by_chance(bins, rows, 2 * rows))
    assert 0.004 < exceeded < 0.02


@pytest.mark.parametrize(
    ("index", "chance", "said"),
    [
        (0.05, 0.01, "stable"),
        (0.05, 0.5, "stable"),
        (0.1, 0.01, "moderate shift"),
        (0.25, 0.01, "moderate shift"),
        (0.26, 0.01, "large shift"),
        (0.26, 0.3, "too few rows"),
    ],
)
def test_reading(index: float, chance: float, said: str) -> None:
    assert reading(index, chance) == said


numbers = st.lists(st.integers(0, 30), min_size=1, max_size=200)


@given(numbers, numbers)
def test_every_value_falls_into_a_bin(training: list[int], served: list[int]) -> None:
    ends = edges(training)
    assert (np.diff(ends) > 0).all()
    assert histogram(served, ends).sum() == len(served)


@given(st.permutations(range(100)))
def test_bins_hold_equally_many_values(values: list[int]) -> None:
    assert histogram(values, edges(values)).tolist() == [10] * 10


def test_bins_end_below_their_edge() -> None:
    assert histogram([0, 4.9, 5, 5, 9, 10], np.array([5.0, 10.0])).tolist() == [2, 3, 1]


@pytest.mark.parametrize("served", [[9] * 1000, [11] * 1000, [90] * 1000])
def test_values_outside_those_of_training_are_a_large_shift(served: list[int]) -> None:
    for training in ([10] * 1000, [10, 11, 12] * 300 + [90] * 300):
        assert shift_of_numbers("tokens", training, served).reading == "large shift"
    assert shift_of_numbers("tokens", served, served).reading == "stable"


@given(numbers, st.integers(1, 1000))
def test_values_above_those_of_training_share_no_bin_with_more_than_a_tenth_of_them(values: list[int], by: int) -> None:
    ends = edges(values)
    above = histogram([max(values) + by], ends).argmax()
    assert histogram(values, ends)[above] <= len(values) / 10 + 1
