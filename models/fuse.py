"""Fit the context part on top of fixed text logits.

Fitting on texts that the text part has learnt by heart would overrate words against context, or the other way
round; so the shape of the weights comes from the training rows, and their scale from the validation rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from features.preprocess import ContextInput
from models.context import ContextHead, Floats

CAPS = (2.0, 3.0, 4.0, 6.0)
SCALES = tuple(step / 20 for step in range(8, 33))
STEPS = 400


def fit_context(
    labels: Sequence[str],
    text_logits: Floats,
    contexts: Sequence[ContextInput],
    targets: Floats,
    *,
    cap: float,
) -> ContextHead:
    """Minimise cross-entropy of `text_logits + context_logits` over the context weights alone; nothing is random.

    Args:
        text_logits: (n, outputs) of the rows' texts.
        targets: (n, outputs) label distributions.
        cap: see `models.context`.
    """
    outputs, depth = text_logits.shape[1], max((len(c.recent_screens) for c in contexts), default=0)
    names = sorted({screen for context in contexts for screen in context.recent_screens})
    seen, log_uses, share = context_features(contexts, names, labels, outputs, depth)
    text, target = torch.from_numpy(text_logits), torch.from_numpy(targets)
    is_product = (torch.arange(outputs) < len(labels)).float()
    free_screens = torch.full((len(names), outputs), -3.0, requires_grad=True)
    free_scalars = torch.tensor([1.5, -0.5, -0.5], requires_grad=True)

    def weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The free parameters within their bounds: screens, decay, usage_log and usage_share."""
        decay, (log, share) = torch.sigmoid(free_scalars[0]), functional.softplus(free_scalars[1:])
        return functional.softplus(free_screens) * is_product, decay, log, share

    optimiser = torch.optim.Adam([free_screens, free_scalars], lr=0.05)
    for _ in range(STEPS):
        screens, decay, usage_log, usage_share = weights()
        by_age = decay ** torch.arange(depth)
        raw = torch.einsum("nds,d,so->no", seen, by_age, screens) + usage_log * log_uses + usage_share * share
        value = functional.cross_entropy(text + cap * torch.tanh(raw / cap), target) + 2e-4 * screens.sum()
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    screens, decay, usage_log, usage_share = (weight.detach() for weight in weights())
    return ContextHead(
        tuple(labels), tuple(names), screens.numpy(), float(decay), float(usage_log), float(usage_share), cap
    )


def scaled(head: ContextHead, scale: float) -> ContextHead:
    """The same head with all evidence, the cap included, multiplied."""
    return replace(
        head,
        screens=head.screens * np.float32(scale),
        usage_log=head.usage_log * scale,
        usage_share=head.usage_share * scale,
        cap=head.cap * scale,
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
