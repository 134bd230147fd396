"""Distil the teacher into a student with a few of its layers.

The loss follows Hinton, Vinyals & Dean (2015): the teacher's distribution at a temperature, beside the labels'
own, plus the cosine distance between the pooled sentence embeddings, which widths allow (Sanh et al., 2019).
The student sees the training texts, noisy copies and mixtures of two, all labelled by the teacher.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from features.preprocess import Ids, Preprocessor
from models.augment import mixed, noisy
from models.networks import Floats, TextNet, shallow_copy
from models.teacher import optimise, predict

TEMPERATURE = 2.0


def default_layers(depth: int, keep: int) -> list[int]:
    """Evenly spaced layers that include the first and the last one."""
    return [round(i * (depth - 1) / (keep - 1)) for i in range(keep)] if keep > 1 else [depth - 1]


def train_student(
    teacher: TextNet,
    preprocessor: Preprocessor,
    texts: Sequence[str],
    targets: Floats,
    *,
    layers: int = 3,
    epochs: int = 5,
    copies: int = 2,
    rate: float = 2e-4,
    batch_size: int = 32,
    seed: int = 0,
) -> TextNet:
    """Distil a student of `layers` layers from (n,) texts and (n, outputs) label distributions."""
    rng = random.Random(seed)
    pool = [*texts] + [noisy(text, rng) for _ in range(copies) for text in texts]
    unlabelled = [mixed(texts, rng) for _ in range(len(texts))]
    rows = preprocessor.tokens(pool + unlabelled)
    logits, embeddings = predict(teacher, rows, title="teacher labels")
    hard = np.concatenate([targets] * (copies + 1))
    soft = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    packed = np.concatenate([np.concatenate([hard, soft[len(pool) :]]), logits, embeddings], axis=1)
    depth = len(teacher.encoder.encoder.layer)
    student = shallow_copy(teacher, default_layers(depth, layers))
    data: tuple[list[Ids], Floats] = (rows, packed.astype(np.float32))
    optimise(
        student, lambda epoch: data, _loss,
        epochs=epochs, rate=rate, batch_size=batch_size, seed=seed, title="student",
    )  # fmt: skip
    return student


def _loss(net: TextNet, ids: Tensor, mask: Tensor, packed: Tensor) -> Tensor:
    outputs = net.head.out_features
    labels, teacher, target = packed[:, :outputs], packed[:, outputs : 2 * outputs], packed[:, 2 * outputs :]
    embedding = net.embed(ids, mask)
    logits = net.head(net.dropout(embedding))
    soft = functional.kl_div(
        functional.log_softmax(logits / TEMPERATURE, dim=1),
        functional.log_softmax(teacher / TEMPERATURE, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    hard = functional.cross_entropy(logits, labels)
    hidden = 1 - functional.cosine_similarity(embedding, target, dim=1).mean()
    return soft * TEMPERATURE**2 + 0.3 * hard + hidden
