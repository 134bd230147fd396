"""How far features of served requests have moved from those of training data; see `features.psi`."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.preprocess import ContextInput
from features.psi import Numbers, by_chance, edges, histogram, psi, reading


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a feature has moved, between the rows that have it; or the share of rows that have it."""

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
    """The shift of numbers, in bins with about equally many training values."""
    expected, actual = np.asarray(training, np.float64), np.asarray(served, np.float64)
    ends = edges(expected) if expected.size else expected
    return shift(feature, histogram(expected, ends), histogram(actual, ends), expected.size, actual.size)


def values(counts: Mapping[int, int]) -> Numbers:
    """Each number, repeated as often as it was counted."""
    return np.repeat(np.array([*counts], np.float64), [*counts.values()])


def shift_of_names(
    feature: str, training: Mapping[str, int], served: Mapping[str, int], rows: tuple[int, int] | None = None
) -> Shift:
    """The shift of names: a bin for each name of the training data, and one for all others.

    Args:
        rows: the number of training and of served rows, if a row may have several names.
    """
    names = sorted(training)
    others = sum(served.values()) - sum(served.get(name, 0) for name in names)
    expected = np.array([*(training[name] for name in names), 0], np.float64)
    actual = np.array([*(served.get(name, 0) for name in names), others], np.float64)
    return shift(feature, expected, actual, *(rows or (int(expected.sum()), int(actual.sum()))))


def share_shift(feature: str, training: tuple[int, int], served: tuple[int, int]) -> Shift:
    """The shift of the share of rows that have a feature at all; no index if no training row has it.

    Args:
        training, served: the number of rows with the feature, and of all rows.
    """
    expected, actual = (np.array([having, rows - having], np.float64) for having, rows in (training, served))
    return shift(feature, expected if training[0] else np.zeros(2), actual, training[1], served[1])


class Contexts:
    """Counts of the screens and the usage of rows; the rows of a log may not fit in memory.

    Args:
        known: the training data's, to count the rows that are outside its range.
    """

    def __init__(self, known: "Contexts | None" = None) -> None:
        self.rows = self.with_screens = self.with_usage = 0
        self.unseen_screens = self.unseen_usage = 0
        """Rows with a screen that no known row has, and with more uses of a product than any known row."""
        self.screens: Counter[str] = Counter()
        self.uses: defaultdict[str, Counter[int]] = defaultdict(Counter)
        """For each product, the number of rows by its uses."""
        self._known = known.screens if known is not None else None
        self._most = {product: max(uses) for product, uses in known.uses.items()} if known is not None else {}

    def add(self, row: ContextInput) -> None:
        screens, usage = row.recent_screens, row.product_usage_60d
        self.rows += 1
        self.with_screens += bool(screens)
        self.with_usage += bool(usage)
        self.screens.update(screens)
        for product, uses in usage.items():
            self.uses[product][uses] += 1
        if self._known is not None:
            self.unseen_screens += any(screen not in self._known for screen in screens)
            self.unseen_usage += any(uses > self._most.get(product, 0) for product, uses in usage.items())

    def of(self, product: str) -> Numbers:
        """Uses of a product in all rows with any usage, in no order."""
        counts = self.uses.get(product, Counter[int]())
        return values(counts + Counter({0: self.with_usage - counts.total()}))


def context_shifts(training: Contexts, served: Contexts) -> list[Shift]:
    """The shifts of screens, and of the uses of each product of the training data, between rows that have any."""
    rows = (training.with_screens, served.with_screens)
    screens = shift_of_names("recent_screens", training.screens, served.screens, rows)
    return [screens, *(_usage_shift(product, training, served) for product in sorted(training.uses))]


def _usage_shift(product: str, training: Contexts, served: Contexts) -> Shift:
    expected, actual = training.of(product), served.of(product)
    ends = np.unique([1.0, *edges(expected[expected > 0], 5)])
    name = f"product_usage_60d:{product}"
    return shift(name, histogram(expected, ends), histogram(actual, ends), expected.size, actual.size)
