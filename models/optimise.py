"""The training loop that every stage shares: batches of like lengths, bfloat16 where it is fast, early stopping."""

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from features.preprocess import Ids
from models.networks import Floats, TextNet, pad
from models.recipe import OptionError

SHOWN_EVERY = 20
"""Batches between two losses that the progress bar shows: to read one, a GPU must have finished it."""
Loss = Callable[[TextNet, Tensor, Tensor, Tensor], Tensor]
EpochData = Callable[[int], tuple[Sequence[Ids], Floats]]


class Check(NamedTuple):
    """How good a network is on validation rows after an epoch."""

    figure: float
    """The higher the better."""
    error: float
    """Its standard error; smaller differences may be chance."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW with a linear warm-up over a tenth of the steps and cosine decay."""

    epochs: int
    rate: float
    batch_size: int = 32
    head_rate: float = 20.0
    """The head's learning rate as a multiple of `rate`, which is the encoder's."""
    patience: int = 2
    """Training stops after this many epochs in a row that are worse than the best by more than a standard error."""
    seed: int = 0


def device() -> torch.device:
    """Where networks are trained: the first GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic on GPUs and on CPUs that multiply it in hardware, where it is 1.6 times as fast."""
    flags = torch.cpu.get_capabilities()
    fast = where.type == "cuda" or bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return torch.autocast(where.type, torch.bfloat16, enabled=fast)


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
    epoch_data: EpochData,
    loss: Loss,
    schedule: Schedule,
    title: str,
    check: Callable[[TextNet], Check] | None = None,
) -> None:
    """Train in place.

    Args:
        epoch_data: epoch number to token vectors and (n, columns) float targets, passed to `loss` by batch.
        check: judges the network after an epoch. The weights of the last epoch within a standard error of the best
            are kept (Breiman et al., 1984, for trees): rates decay, so of epochs that look alike the last is best.

    Raises:
        OptionError: the network's outputs became NaN, so that no epoch can be chosen.
    """
    rng = random.Random(schedule.seed)
    torch.manual_seed(schedule.seed)
    net.to(device())
    rows, targets = epoch_data(0)
    steps = math.ceil(len(rows) / schedule.batch_size) * schedule.epochs
    descent = _Descent(net, loss, schedule, steps)
    best, kept_epoch, kept = -math.inf, 0, None
    with tqdm(total=steps, desc=title, unit="batch") as bar:
        for epoch in range(schedule.epochs):
            if epoch:
                rows, targets = epoch_data(epoch)
            net.train()
            for indices in batches([len(row) for row in rows], schedule.batch_size, rng):
                value = descent.step([rows[i] for i in indices], targets[indices])
                bar.update()
                if bar.n % SHOWN_EVERY == 0:
                    bar.set_postfix(epoch=epoch + 1, loss=f"{value.item():.3f}", best=f"{best:.4f}", refresh=False)
            if check is not None:
                figure, error = check(net)
                if math.isnan(figure):
                    raise OptionError(f"{title}: training diverged, the outputs are NaN after epoch {epoch + 1}")
                best = max(best, figure)
                if figure >= best - error:
                    kept_epoch, kept = epoch, copy.deepcopy(net.state_dict())
                elif epoch - kept_epoch >= schedule.patience:
                    break
    if kept is not None:
        net.load_state_dict(kept)
    net.cpu().eval()


class _Descent:
    """AdamW with the schedule's learning rates; `steps` are those of the whole training."""

    def __init__(self, net: TextNet, loss: Loss, schedule: Schedule, steps: int) -> None:
        self._net, self._loss, self._where = net, loss, device()
        self._optimiser = _optimiser(net, schedule)
        self._rates = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: _warm_cosine(step, steps))

    def step(self, rows: Sequence[Ids], targets: Floats) -> Tensor:
        """One step for a batch; returns its loss."""
        ids, mask = pad(rows)
        with autocast(self._where):
            value = self._loss(
                self._net, ids.to(self._where), mask.to(self._where), torch.from_numpy(targets).to(self._where)
            )
        self._optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimiser.step()
        self._rates.step()
        return value


def _optimiser(net: TextNet, schedule: Schedule) -> torch.optim.Optimizer:
    groups = [
        {"params": net.encoder.parameters(), "lr": schedule.rate},
        {"params": net.head.parameters(), "lr": schedule.rate * schedule.head_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01, fused=True)


def _warm_cosine(step: int, total: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps, then cosine decay."""
    warm = max(1, total // 10)
    decay = min(1.0, max(0, step - warm) / (total - warm + 1))
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * decay)))
