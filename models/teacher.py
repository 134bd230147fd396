"""Fine-tune the teachers: soft-label cross-entropy, noise on the text, balanced rows, early stopping."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from features.preprocess import Ids, Preprocessor
from models.augment import noisy
from models.networks import Floats, TextNet, pad
from models.optimise import Check, Schedule, autocast, device, optimise


def soft_cross_entropy(net: TextNet, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against label distributions of shape (batch, outputs)."""
    return functional.cross_entropy(net(ids, mask).float(), targets)


def train_teacher(
    net: TextNet,
    preprocessor: Preprocessor,
    texts: Sequence[str],
    targets: Floats,
    schedule: Schedule,
    *,
    validation: tuple[Sequence[Ids], Floats] | None = None,
    smoothing: float = 0.1,
    balance: float = 0.0,
    title: str = "teacher",
) -> TextNet:
    """Fine-tune on (n,) texts and (n, outputs) label distributions; half the texts get noise.

    Args:
        validation: token vectors and label distributions to choose the epoch by that is kept.
        smoothing: share of every label spread over all outputs (Szegedy et al., 2016).
        balance: see `resampled`.
    """
    smooth = (targets * (1 - smoothing) + smoothing / targets.shape[1]).astype(np.float32)

    def epoch_data(epoch: int) -> tuple[list[Ids], Floats]:
        rng = random.Random(schedule.seed * 1000 + epoch)
        chosen = resampled(targets, balance, rng)
        noised = [noisy(texts[i], rng) if rng.random() < 0.5 else texts[i] for i in chosen]
        return preprocessor.tokens(noised), smooth[chosen]

    optimise(net, epoch_data, soft_cross_entropy, schedule, title, check=accuracy_on(validation))
    return net


def train_teachers(
    count: int,
    make: Callable[[], TextNet],
    preprocessor: Preprocessor,
    texts: Sequence[str],
    targets: Floats,
    schedule: Schedule,
    *,
    validation: tuple[Sequence[Ids], Floats] | None = None,
    balance: float = 0.0,
    smoothing: float = 0.1,
) -> list[TextNet]:
    """Several teachers from the same data, each with a seed of its own, to be averaged (Lakshminarayanan, 2017)."""
    teachers = []
    for i in range(count):
        own = replace(schedule, seed=schedule.seed + i)
        torch.manual_seed(own.seed)
        title = f"teacher {i + 1}/{count}"
        teachers.append(
            train_teacher(
                make(),
                preprocessor,
                texts,
                targets,
                own,
                validation=validation,
                balance=balance,
                smoothing=smoothing,
                title=title,
            )
        )
    return teachers


def resampled(targets: Floats, balance: float, rng: random.Random) -> list[int]:
    """Indices of one epoch's rows: every row once, or rare labels more often.

    Args:
        targets: (n, outputs) label distributions.
        balance: 0 leaves the labels' shares as they are, 1 makes them equal; a row is drawn in proportion to
            `frequency ** -balance` of its label.
    """
    if not balance:
        return list(range(len(targets)))
    label = targets.argmax(axis=1)
    weight = np.bincount(label, minlength=targets.shape[1]).clip(1)[label] ** -balance
    return rng.choices(range(len(targets)), weights=weight.tolist(), k=len(targets))


def accuracy_on(validation: tuple[Sequence[Ids], Floats] | None) -> Callable[[TextNet], Check] | None:
    """A check for `optimise`: accuracy on held-out rows, less a hundredth of the cross-entropy to break ties."""
    if validation is None or not len(validation[0]):
        return None
    rows, targets = validation

    def check(net: TextNet) -> Check:
        logits = predict(net, rows)[0]
        loss = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
        right, n = share_right(logits, targets), len(rows)
        likely = (right * n + 1) / (n + 2)  # by the rule of succession: none wrong of a few says little
        return Check(right - 0.01 * float(loss), math.sqrt(likely * (1 - likely) / n))

    return check


def share_right(logits: Floats, targets: Floats) -> float:
    """Share of (n, outputs) logits whose largest is at the likeliest label, or at one of those."""
    return float((targets[np.arange(len(targets)), logits.argmax(axis=1)] >= targets.max(axis=1)).mean())


def predict(net: TextNet, rows: Sequence[Ids], batch_size: int = 64, title: str | None = None) -> tuple[Floats, Floats]:
    """(n, outputs) logits and (n, width) embeddings of token vectors, without gradients."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    where = device()
    net.to(where).eval()
    logits: list[Tensor] = []
    embeddings: list[Tensor] = []
    starts = range(0, len(order), batch_size)
    with torch.inference_mode(), autocast(where):
        for start in tqdm(starts, desc=title, unit="batch", disable=title is None):
            ids, mask = pad([rows[i] for i in order[start : start + batch_size]])
            embedding = net.embed(ids.to(where), mask.to(where))
            embeddings.append(embedding.float().cpu())
            logits.append(net.head(embedding).float().cpu())
    inverse = np.argsort(np.asarray(order))
    return torch.cat(logits).numpy()[inverse], torch.cat(embeddings).numpy()[inverse]


def average(logits: Sequence[Floats]) -> Floats:
    """(n, outputs) log of the mean probability of several networks' logits."""
    together = torch.stack([torch.log_softmax(torch.from_numpy(part), dim=1) for part in logits])
    mean: Floats = (torch.logsumexp(together, dim=0) - np.log(len(logits))).numpy()
    return mean
