"""Fine-tune the teacher: soft-label cross-entropy, bucketed batches, noise on the text."""

import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from features.preprocess import Ids, Preprocessor
from models.augment import noisy
from models.networks import Floats, TextNet, pad

Loss = Callable[[TextNet, Tensor, Tensor, Tensor], Tensor]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Shuffled batches of indices of similar length: sort within windows of 16 batches."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = size * 16
    chunks = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda i: lengths[i])
        chunks += [part[i : i + size] for i in range(0, len(part), size)]
    rng.shuffle(chunks)
    yield from chunks


def optimise(
    net: TextNet,
    epoch_data: Callable[[int], tuple[list[Ids], Floats]],
    loss: Loss,
    *,
    epochs: int,
    rate: float,
    batch_size: int,
    seed: int,
    title: str,
) -> None:
    """AdamW with warm-up and cosine decay; the head learns 20 times as fast as the encoder.

    Args:
        epoch_data: epoch number to token vectors and (n, columns) float targets, passed to `loss` by batch.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    where = device()
    net.to(where).train()
    groups = [
        {"params": net.encoder.parameters(), "lr": rate},
        {"params": net.head.parameters(), "lr": rate * 20},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    rows, _ = epoch_data(0)
    total = epochs * math.ceil(len(rows) / batch_size)
    warm = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(
            (step + 1) / warm,
            0.5 * (1 + math.cos(math.pi * min(1, max(0, step - warm) / (total - warm + 1)))),
        ),
    )
    with tqdm(total=total, desc=title, unit="batch") as bar:
        for epoch in range(epochs):
            rows, targets = epoch_data(epoch)
            for indices in batches([len(row) for row in rows], batch_size, rng):
                ids, mask = pad([rows[i] for i in indices])
                value = loss(net, ids.to(where), mask.to(where), torch.from_numpy(targets[indices]).to(where))
                optimiser.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                bar.update()
                bar.set_postfix(epoch=epoch + 1, loss=f"{value.item():.3f}")
    net.cpu().eval()


def soft_cross_entropy(net: TextNet, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against label distributions of shape (batch, outputs)."""
    return functional.cross_entropy(net(ids, mask), targets)


def train_teacher(
    net: TextNet,
    preprocessor: Preprocessor,
    texts: Sequence[str],
    targets: Floats,
    *,
    epochs: int,
    rate: float = 1e-4,
    batch_size: int = 32,
    smoothing: float = 0.05,
    seed: int = 0,
) -> TextNet:
    """Fine-tune on (n,) texts and (n, outputs) label distributions; half the texts get noise."""
    smooth = (targets * (1 - smoothing) + smoothing / targets.shape[1]).astype(np.float32)

    def epoch_data(epoch: int) -> tuple[list[Ids], Floats]:
        rng = random.Random(seed * 1000 + epoch)
        return preprocessor.tokens([noisy(t, rng) if rng.random() < 0.5 else t for t in texts]), smooth

    optimise(
        net, epoch_data, soft_cross_entropy,
        epochs=epochs, rate=rate, batch_size=batch_size, seed=seed, title="teacher",
    )  # fmt: skip
    return net


def predict(net: TextNet, rows: Sequence[Ids], batch_size: int = 64, title: str | None = None) -> tuple[Floats, Floats]:
    """(n, outputs) logits and (n, width) embeddings of token vectors, without gradients."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    where = device()
    net.to(where).eval()
    logits: list[Tensor] = []
    embeddings: list[Tensor] = []
    starts = range(0, len(order), batch_size)
    with torch.inference_mode():
        for start in tqdm(starts, desc=title, unit="batch", disable=title is None):
            ids, mask = pad([rows[i] for i in order[start : start + batch_size]])
            embedding = net.embed(ids.to(where), mask.to(where))
            embeddings.append(embedding.cpu())
            logits.append(net.head(embedding).cpu())
    net.cpu()
    inverse = np.argsort(np.asarray(order))
    return torch.cat(logits).numpy()[inverse], torch.cat(embeddings).numpy()[inverse]
