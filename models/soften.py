"""Soften labels by what a model says that has not seen them.

Some messages that a writer holds for clear are not: "expiry date please". Taught as certain, they make the text part
sure of vague words, and no context can then correct it. So each row's label is mixed with the prediction of a
teacher that was trained on the other folds: a row that others contradict becomes an ambiguous one. The idea is that
of confident learning (Northcutt, Jiang & Chuang, 2021), with mixing in place of removal.
"""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from features.preprocess import Preprocessor
from models.context import Floats, softmax
from models.duplicates import clusters
from models.networks import TextNet
from models.teacher import predict, train_teacher

KEEP = 0.6
"""Weight of the writer's label; the rest is the prediction's."""


def soften(
    encoder: Any,
    preprocessor: Preprocessor,
    texts: Sequence[str],
    targets: Floats,
    *,
    folds: int = 3,
    epochs: int = 4,
    seed: int = 0,
) -> Floats:
    """(n, outputs) label distributions, mixed with out-of-fold predictions; near-duplicates share a fold."""
    owners = clusters(texts)
    fold = np.array([hashlib.sha256(texts[owner].encode()).digest()[0] % folds for owner in owners])
    predicted = np.zeros_like(targets)
    for held in range(folds):
        inside, outside = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        if not len(inside) or not len(outside):
            return targets
        net = TextNet(copy.deepcopy(encoder), targets.shape[1])
        seen = [texts[int(i)] for i in inside]
        train_teacher(net, preprocessor, seen, targets[inside], epochs=epochs, seed=seed + held + 1)
        logits, _ = predict(net, preprocessor.tokens([texts[int(i)] for i in outside]))
        predicted[outside] = softmax(logits, 1.3)
    return (KEEP * targets + (1 - KEEP) * predicted).astype(np.float32)
