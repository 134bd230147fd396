"""The context part of the model: recent screens and product usage to logits, in numpy.

    context_logits = cap * tanh((sum_i decay^i * S[screen_i] + a * log1p(uses) + b * share_of_uses) / cap)

with i = 0 for the newest screen. All weights are non-negative and `decay <= 1`, so an older screen or a use of
a product never lowers that product's own logit. A new newest screen can, since those before it then count by `decay`
less. The cap keeps a misleading context from drowning clear words.
Without a store, the part contributes exactly zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt

from features.drafts import replacing
from features.preprocess import ContextInput

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ContextHead:
    """Weights of the context part; `outputs` columns in the order of the text logits."""

    labels: tuple[str, ...]
    screen_names: tuple[str, ...]
    screens: Floats
    """(screens, outputs) evidence of seeing a screen."""
    decay: float
    """Weight of a screen relative to the next newer one."""
    usage_log: float
    usage_share: float
    cap: float
    _row: Mapping[str, int] = field(init=False, repr=False)
    _column: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row", {name: i for i, name in enumerate(self.screen_names)})
        object.__setattr__(self, "_column", {label: i for i, label in enumerate(self.labels)})

    @classmethod
    def empty(cls, labels: Sequence[str], outputs: int) -> Self:
        """A head that adds nothing, for data without contexts."""
        return cls(tuple(labels), (), np.zeros((0, outputs), np.float32), 1.0, 0.0, 0.0, 1.0)

    def logits(self, contexts: Sequence[ContextInput]) -> Floats:
        """(n, outputs) context logits; unknown screens and products count as absent."""
        raw = np.zeros((len(contexts), self.screens.shape[1]), dtype=np.float32)
        self._add_screens(raw, contexts)
        self._add_usage(raw, contexts)
        return cast(Floats, np.float32(self.cap) * np.tanh(raw / np.float32(self.cap)))

    def _add_screens(self, raw: Floats, contexts: Sequence[ContextInput]) -> None:
        found = [
            (i, row, age)
            for i, context in enumerate(contexts)
            for age, screen in enumerate(reversed(context.recent_screens))
            if (row := self._row.get(screen)) is not None
        ]
        if found:
            messages, rows, ages = np.array(found).T
            weights = np.power(self.decay, ages, dtype=np.float32)
            np.add.at(raw, messages, weights[:, None] * self.screens[rows])

    def _add_usage(self, raw: Floats, contexts: Sequence[ContextInput]) -> None:
        found = [
            (i, column, uses)
            for i, context in enumerate(contexts)
            for product, uses in context.product_usage_60d.items()
            if (column := self._column.get(product)) is not None
        ]
        if found:
            messages, columns, uses = np.array(found).T
            share = uses / np.bincount(messages, uses)[messages]
            evidence = self.usage_log * np.log1p(uses) + self.usage_share * share
            np.add.at(raw, (messages, columns), evidence.astype(np.float32))

    def save(self, path: Path) -> None:
        """Write the head as one `.npz` file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                labels=np.array(self.labels),
                screen_names=np.array(self.screen_names, dtype=np.str_),
                screens=self.screens,
                scalars=np.array([self.decay, self.usage_log, self.usage_share, self.cap], dtype=np.float64),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """The head that `save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError, KeyError, zipfile.BadZipFile: it holds something else; bundles check its hash before.
        """
        with np.load(path, allow_pickle=False) as data:
            decay, usage_log, usage_share, cap = (float(x) for x in data["scalars"])
            names = tuple(str(x) for x in data["screen_names"])
            labels = tuple(str(x) for x in data["labels"])
            return cls(labels, names, data["screens"], decay, usage_log, usage_share, cap)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """(n, outputs) probabilities of (n, outputs) logits."""
    z = logits / np.float32(temperature)
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return cast(Floats, z / z.sum(axis=1, keepdims=True))


def probabilities(text_logits: Floats, context_logits: Floats, temperature: float) -> Floats:
    """(n, outputs) softmax((text + context) / temperature)."""
    return softmax(text_logits + context_logits, temperature)
