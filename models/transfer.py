"""The transfer set: what the teachers label for the student.

Training texts, noisy copies of them, mixtures of two, and unlabelled messages of the user's own, if there are any.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.preprocess import Preprocessor
from models.augment import mixed, noisy
from models.networks import Floats, TextNet
from models.teacher import average, predict


@dataclass(frozen=True, slots=True)
class TransferSet:
    """n texts with their labels, and what the teachers predict for each."""

    texts: list[str]
    labels: Floats
    """(n, outputs) distributions: the given labels, or the teachers' mean distribution where none was given."""
    logits: Floats
    """(n, outputs) log of the teachers' mean probability."""
    embeddings: Floats
    """(n, width) pooled last layer of the first teacher."""


def transfer_texts(
    texts: Sequence[str], unlabelled: Sequence[str], *, noise: int, mixtures: int, seed: int
) -> tuple[list[str], list[int]]:
    """The texts of a transfer set, and for each the row of the training text whose label it has, or -1.

    Args:
        noise: noisy copies of every training text.
        mixtures: mixed texts for every training text.
    """
    rng = random.Random(seed)
    pool, owner = [*texts], list(range(len(texts)))
    for _ in range(noise):
        pool += [noisy(text, rng) for text in texts]
        owner += range(len(texts))
    without_label = [mixed(texts, rng) for _ in range(mixtures * len(texts))] + [*unlabelled]
    return pool + without_label, owner + [-1] * len(without_label)


def label(
    teachers: Sequence[TextNet], preprocessor: Preprocessor, pool: Sequence[str], owner: Sequence[int], targets: Floats
) -> TransferSet:
    """Let the teachers label a pool of texts; `targets` are the (n, outputs) labels of the training texts."""
    rows = preprocessor.tokens(pool)
    answers = [predict(net, rows, title=f"labels of teacher {i + 1}") for i, net in enumerate(teachers)]
    logits = average([logits for logits, _ in answers])
    known = np.asarray(owner)
    labels = np.where((known >= 0)[:, None], targets[known], np.exp(logits)).astype(np.float32)
    return TransferSet([*pool], labels, logits, answers[0][1])
