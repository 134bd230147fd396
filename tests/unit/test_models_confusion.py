"""The confusion matrix and its text against their definitions."""

import re
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.calibrate import Ints
from models.confusion import LISTED, TABLE_LABELS, as_text, confusion, most_frequent

small = st.integers(1, TABLE_LABELS)
large = st.integers(TABLE_LABELS + 1, 40)


def ints(values: Any) -> Ints:
    return np.asarray(values, dtype=np.int64)


def matrices(sizes: st.SearchStrategy[int], top: int = 2_000) -> st.SearchStrategy[Ints]:
    """Square matrices, mostly of zeros, with some counts up to `top`."""

    def filled(k: int) -> st.SearchStrategy[Ints]:
        cells = st.dictionaries(st.integers(0, k * k - 1), st.integers(1, top), max_size=40)
        return cells.map(lambda counts: ints([counts.get(i, 0) for i in range(k * k)]).reshape(k, k))

    return sizes.flatmap(filled)


def labels_of(matrix: Ints) -> list[str]:
    return [f"label_{i}" for i in range(len(matrix))]


@given(st.integers(1, 20).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.tuples(*[st.integers(0, k - 1)] * 2)))))
def test_each_cell_counts_its_pairs(case: tuple[int, list[tuple[int, int]]]) -> None:
    k, pairs = case
    answers, truth = ints([answer for answer, _ in pairs]), ints([true for _, true in pairs])
    matrix = confusion(answers, truth, labels_of(np.zeros((k, k), dtype=np.int64)))
    assert matrix.tolist() == [[pairs.count((answer, true)) for answer in range(k)] for true in range(k)]


@given(matrices(small))
def test_a_table_holds_every_count(matrix: Ints) -> None:
    head, *rows = as_text(matrix, labels_of(matrix)).splitlines()
    assert head.split()[3:] == [str(number) for number in range(1, len(matrix) + 1)]
    read = [row.split() for row in rows]
    assert [cells[:2] for cells in read] == [[str(i), label] for i, label in enumerate(labels_of(matrix), 1)]
    assert [[0 if cell == "." else int(cell) for cell in cells[2:]] for cells in read] == matrix.tolist()
    assert len({len(line) for line in (head, *rows)}) == 1


@given(matrices(large, top=3))
def test_a_list_holds_the_most_frequent_confusions(matrix: Ints) -> None:
    found = re.findall(r"^label_(\d+) -> label_(\d+) +(\d+)$", as_text(matrix, labels_of(matrix)), re.MULTILINE)
    listed = [(int(true), int(answered), int(n)) for true, answered, n in found]
    wrong = sorted((int(n) for (i, j), n in np.ndenumerate(matrix) if i != j and n), reverse=True)
    assert [n for _, _, n in listed] == wrong[:LISTED]
    assert all(true != answered and matrix[true, answered] == n for true, answered, n in listed)
    assert len({(true, answered) for true, answered, _ in listed}) == len(listed)


def test_labels_as_the_terminal_shows_them() -> None:
    matrix = ints([[12, 0], [3, 140]])
    assert as_text(matrix, ["loans", "cards"]).splitlines() == [
        "true \\ answered   1   2",
        " 1 loans         12   .",
        " 2 cards          3 140",
    ]


def test_a_perfect_model_of_many_labels_confuses_nothing() -> None:
    matrix = np.diag(ints(range(1, TABLE_LABELS + 2)))
    assert as_text(matrix, labels_of(matrix)) == "no label is taken for another"
    assert most_frequent(matrix) == []
