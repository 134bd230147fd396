"""How far features of served requests have moved from those of training data; see `features.psi`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.preprocess import ContextInput
from features.psi import Numbers, by_chance, edges, histogram, psi, reading


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one feature has moved, between rows that have it; or how far the share of rows that have it."""

    feature: str
    psi: float | None
    """None where one side has no rows."""
    training_rows: int
    served_rows: int
    bins: int

    @property
    def reading(self) -> str:
        if self.psi is None:
            return "no rows"
        return reading(self.psi, by_chance(self.bins, self.training_rows, self.served_rows))


def shift(feature: str, expected: Numbers, actual: Numbers, training_rows: int, served_rows: int) -> Shift:
    """The shift between two histograms over the same bins."""
    index = psi(expected, actual) if expected.any() and actual.any() else None
    return Shift(feature, index, training_rows, served_rows, int(np.count_nonzero((expected > 0) | (actual > 0))))


def shift_of_numbers(feature: str, training: npt.ArrayLike, served: npt.ArrayLike) -> Shift:
    """Between numbers, in bins that hold equally many of the training data's."""
    expected, actual = np.asarray(training, np.float64), np.asarray(served, np.float64)
    ends = edges(expected) if expected.size else expected
    return shift(feature, histogram(expected, ends), histogram(actual, ends), expected.size, actual.size)


def shift_of_names(
    feature: str, training: Mapping[str, int], served: Mapping[str, int], rows: tuple[int, int] | None = None
) -> Shift:
    """Between names, each a bin, and one for all that training data lacks.

    Args:
        rows: how many rows each side has, where a row may have several names.
    """
    names = sorted(training)
    others = sum(served.values()) - sum(served.get(name, 0) for name in names)
    expected = np.array([*(training[name] for name in names), 0], np.float64)
    actual = np.array([*(served.get(name, 0) for name in names), others], np.float64)
    return shift(feature, expected, actual, *(rows or (int(expected.sum()), int(actual.sum()))))


def share_shift(feature: str, training: tuple[int, int], served: tuple[int, int]) -> Shift:
    """Between the shares of rows that have a feature at all; not compared where no training row has it.

    Args:
        training, served: how many rows have it, and how many there are.
    """
    expected, actual = (np.array([having, rows - having], np.float64) for having, rows in (training, served))
    return shift(feature, expected if training[0] else np.zeros(2), actual, training[1], served[1])


def screen_shift(training: Sequence[ContextInput], served: Sequence[ContextInput]) -> tuple[Shift, int]:
    """Between the screens of rows that have any; and how many served rows have one that the training data lacks."""
    before, now = ([row.recent_screens for row in rows if row.recent_screens] for rows in (training, served))
    names, counts = (Counter(screen for screens in rows for screen in screens) for rows in (before, now))
    outside = sum(any(screen not in names for screen in screens) for screens in now)
    return shift_of_names("recent_screens", names, counts, (len(before), len(now))), outside


def usage_shifts(training: Sequence[ContextInput], served: Sequence[ContextInput]) -> tuple[list[Shift], int]:
    """For each product between its uses, in rows with any use of a product; and how many served rows have more uses
    of one than any training row."""
    before, now = ([row.product_usage_60d for row in rows if row.product_usage_60d] for rows in (training, served))
    most = Counter[str]()
    for usage in before:
        most |= Counter(usage)
    outside = sum(any(uses > most[product] for product, uses in usage.items()) for usage in now)
    return [_usage_shift(product, before, now) for product in sorted(most)], outside


def _usage_shift(product: str, before: Sequence[Mapping[str, int]], now: Sequence[Mapping[str, int]]) -> Shift:
    expected, actual = (np.array([usage.get(product, 0) for usage in rows], np.float64) for rows in (before, now))
    ends = np.unique([1.0, *edges(expected[expected > 0], 5)])
    name = f"product_usage_60d:{product}"
    return shift(name, histogram(expected, ends), histogram(actual, ends), expected.size, actual.size)
