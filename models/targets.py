"""Labels as numbers: columns, one-hot rows, and the label distribution of each distinct text."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from models.context import Floats
from models.data import OUT_OF_SCOPE, Example, labels


def outputs(examples: Sequence[Example]) -> int:
    """Width of the text logits: the products, plus one column when out-of-scope messages are labelled."""
    return len(labels(examples)) + any(example.product == OUT_OF_SCOPE for example in examples)


def one_hot(examples: Sequence[Example], names: Sequence[str], width: int) -> Floats:
    """(n, width) targets; out of scope is the last column."""
    column = {name: i for i, name in enumerate(names)} | {OUT_OF_SCOPE: width - 1}
    return np.eye(width, dtype=np.float32)[[column[example.product] for example in examples]]


def text_targets(examples: Sequence[Example], names: Sequence[str], width: int) -> tuple[list[str], Floats]:
    """Distinct texts and their (n, width) label distributions: an ambiguous text has several products."""
    rows: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        rows[example.text].append(example)
    if not rows:
        return [], np.zeros((0, width), np.float32)
    means = [one_hot(group, names, width).mean(axis=0) for group in rows.values()]
    return list(rows), np.stack(means).astype(np.float32)
