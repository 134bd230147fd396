"""Fit the context part on top of fixed text logits.

Fitting on texts that the text part has learnt by heart would overrate words against context, or the other way
round; so the shape of the weights comes from the training rows, and their scale from the validation rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from features.preprocess import ContextInput
from models.context import ContextHead, Floats

CAPS = (2.0, 3.0, 4.0, 6.0)
SCALES = tuple(step / 20 for step in range(8, 33))


def fit_context(
    labels: Sequence[str],
    text_logits: Floats,
    contexts: Sequence[ContextInput],
    targets: Floats,
    *,
    cap: float,
    steps: int = 400,
    seed: int = 0,
) -> ContextHead:
    """Minimise cross-entropy of `text_logits + context_logits` over the context weights alone.

    Args:
        text_logits: (n, outputs) of the rows' texts.
        targets: (n, outputs) label distributions.
        cap: see `models.context`.
    """
    torch.manual_seed(seed)
    outputs, depth = text_logits.shape[1], max((len(c.recent_screens) for c in contexts), default=0)
    names = sorted({screen for context in contexts for screen in context.recent_screens})
    seen, log_uses, share = context_features(contexts, names, labels, outputs, depth)
    text, target = torch.from_numpy(text_logits), torch.from_numpy(targets)
    column = torch.zeros(outputs)
    column[: len(labels)] = 1.0
    screens = torch.full((len(names), outputs), -3.0, requires_grad=True)
    scalars = torch.tensor([1.5, -0.5, -0.5], requires_grad=True)
    optimiser = torch.optim.Adam([screens, scalars], lr=0.05)
    for _ in range(steps):
        weight = functional.softplus(screens) * column
        decay = torch.sigmoid(scalars[0]) ** torch.arange(depth)
        a, b = functional.softplus(scalars[1]), functional.softplus(scalars[2])
        raw = torch.einsum("nds,d,so->no", seen, decay, weight) + a * log_uses + b * share
        value = functional.cross_entropy(text + cap * torch.tanh(raw / cap), target) + 2e-4 * weight.sum()
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return ContextHead(
            labels=tuple(labels),
            screen_names=tuple(names),
            screens=(functional.softplus(screens) * column).numpy().astype(np.float32),
            decay=float(torch.sigmoid(scalars[0])),
            usage_log=float(functional.softplus(scalars[1])),
            usage_share=float(functional.softplus(scalars[2])),
            cap=cap,
        )


def scaled(head: ContextHead, scale: float) -> ContextHead:
    """The same head with all evidence, the cap included, multiplied."""
    return ContextHead(
        head.labels,
        head.screen_names,
        head.screens * np.float32(scale),
        head.decay,
        head.usage_log * scale,
        head.usage_share * scale,
        head.cap * scale,
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows of one kind to compare context heads on."""

    text_logits: Floats
    """(n, products)"""
    contexts: Sequence[ContextInput]
    truth: npt.NDArray[np.int64]
    """(n,) column of the right product."""

    def lost(self, head: ContextHead) -> float:
        """The share of rows that come out wrong though words or context alone get them right."""
        context = head.logits(self.contexts)[:, : self.text_logits.shape[1]]
        by_words = self.text_logits.argmax(axis=1) == self.truth
        by_context = (context.argmax(axis=1) == self.truth) & (np.ptp(context, axis=1) > 0)
        wrong = (self.text_logits + context).argmax(axis=1) != self.truth
        return float((wrong & (by_words | by_context)).mean())


def balanced(heads: Sequence[ContextHead], trials: Sequence[Trial]) -> ContextHead:
    """The head and scale whose worst loss over the trials is smallest; the first of several such.

    With ambiguous rows and clear rows with misleading contexts as trials, neither words nor context are heard at
    the cost of the other.

    Raises:
        ValueError: there are no heads or no trials.
    """
    candidates = [scaled(head, scale) for head in heads for scale in SCALES]
    return min(candidates, key=lambda head: max(trial.lost(head) for trial in trials))


def context_features(
    contexts: Sequence[ContextInput], names: Sequence[str], labels: Sequence[str], outputs: int, depth: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(n, depth, screens) screens by age, (n, outputs) log of uses and (n, outputs) share of uses."""
    row = {name: i for i, name in enumerate(names)}
    column = {label: i for i, label in enumerate(labels)}
    seen = torch.zeros(len(contexts), depth, len(names))
    log_uses, share = torch.zeros(len(contexts), outputs), torch.zeros(len(contexts), outputs)
    for n, context in enumerate(contexts):
        for age, screen in enumerate(reversed(context.recent_screens)):
            if age < depth and screen in row:
                seen[n, age, row[screen]] = 1.0
        uses = {column[p]: c for p, c in context.product_usage_60d.items() if p in column}
        for o, count in uses.items():
            log_uses[n, o] = float(np.log1p(count))
            share[n, o] = count / sum(uses.values())
    return seen, log_uses, share
