"""Which product is taken for which: the confusion matrix, and its form in a terminal."""

from collections.abc import Iterator, Sequence

import numpy as np

from models.calibrate import Ints

TABLE_LABELS = 15
"""The most labels that a table in a terminal has room for."""
LISTED = 15
"""Confusions that are listed when there is no room for a table."""
_CORNER = "true \\ answered"


def confusion(answers: Ints, truth: Ints, labels: Sequence[str]) -> Ints:
    """(k, k) counts of k labels; the row is the true label, the column the answered one.

    Args:
        answers: (n,) positions in labels; truth: (n,) positions in labels.
    """
    k = len(labels)
    return np.bincount(truth * k + answers, minlength=k * k).reshape(k, k).astype(np.int64)


def as_text(matrix: Ints, labels: Sequence[str]) -> str:
    """A table for up to `TABLE_LABELS` labels, with a dot for zero; for more, the most frequent confusions.

    Args:
        matrix: (k, k) counts, see `confusion`; labels: their k names.
    """
    return "\n".join(_table(matrix, labels) if len(labels) <= TABLE_LABELS else _list(matrix, labels))


def most_frequent(matrix: Ints) -> list[tuple[int, int, int]]:
    """(true, answered, n) of the `LISTED` label pairs that are confused most, the most frequent first."""
    wrong = np.where(np.eye(len(matrix), dtype=np.bool_), 0, matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    pairs = [(int(place) // len(matrix), int(place) % len(matrix)) for place in order]
    return [(true, answered, int(wrong[true, answered])) for true, answered in pairs if wrong[true, answered]]


def _table(matrix: Ints, labels: Sequence[str]) -> Iterator[str]:
    """One row for each true label; the columns are numbered as the rows are."""
    name = max([len(_CORNER), *(len(label) + 3 for label in labels)])
    width = max([3, *(len(str(count)) + 1 for count in matrix.flat)])
    yield f"{_CORNER:<{name}}" + "".join(f"{number:>{width}}" for number in range(1, len(labels) + 1))
    for number, (label, row) in enumerate(zip(labels, matrix, strict=True), 1):
        yield f"{f'{number:>2} {label}':<{name}}" + "".join(f"{count or '.':>{width}}" for count in row)


def _list(matrix: Ints, labels: Sequence[str]) -> Iterator[str]:
    found = [(f"{labels[true]} -> {labels[answered]}", n) for true, answered, n in most_frequent(matrix)]
    if not found:
        yield "no label is taken for another"
    else:
        yield "most frequent confusions, true -> answered"
    width = max((len(pair) for pair, _ in found), default=0)
    for pair, n in found:
        yield f"{pair:<{width}}  {n}"
