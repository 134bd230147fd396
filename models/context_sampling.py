"""Contexts for clear messages in training: agreeing, absent, stale, misleading.

They are drawn from the contexts that the labelled data itself holds, so no list of screens is needed: what
customers of product X had on their screen agrees with X and misleads for Y.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from features.preprocess import ContextInput, PreprocessConfig, Preprocessor
from models.data import OUT_OF_SCOPE, Example

MAX_SCREENS = PreprocessConfig().max_screens


def context_inputs(preprocessor: Preprocessor, examples: Sequence[Example]) -> list[ContextInput]:
    """What the context part is given for each example."""
    return [preprocessor.context(e.recent_screens, e.product_usage_60d) for e in examples]


class ContextPool:
    """The contexts of labelled rows by the rows' products."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._by_product: defaultdict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if example.has_context:
                self._by_product[example.product].append(example)

    def __bool__(self) -> bool:
        return bool(self._by_product)

    def agreeing(self, example: Example, rng: random.Random) -> Example:
        """The message with a context of its own product, or unchanged if there is none."""
        return self._with(example, [example.product], rng)

    def misleading(self, example: Example, rng: random.Random) -> Example:
        """The message with a context of another product, or unchanged if there is none."""
        return self._with(example, [p for p in sorted(self._by_product) if p != example.product], rng)

    def stale(self, example: Example, rng: random.Random) -> Example:
        """Another product's screens first, then those of an unrelated visit; usage as of the newer one."""
        old, new = self.misleading(example, rng), self.misleading(example, rng)
        screens = (*old.recent_screens, *new.recent_screens)[-MAX_SCREENS:]
        return replace(example, recent_screens=screens, product_usage_60d=new.product_usage_60d)

    def _with(self, example: Example, products: list[str], rng: random.Random) -> Example:
        pools = [self._by_product[p] for p in products if p in self._by_product]
        if not pools:
            return example
        source = rng.choice(rng.choice(pools))
        return replace(example, recent_screens=source.recent_screens, product_usage_60d=source.product_usage_60d)


def with_contexts(examples: Sequence[Example], pool: ContextPool, copies: int, seed: int) -> list[Example]:
    """Training rows for the context part.

    Rows that carry a context stay as they are, `copies` times. Rows without one appear `copies` times with a
    drawn context: 35 % absent, 20 % agreeing, 15 % stale, 30 % misleading; out of scope: never agreeing.
    """
    rng = random.Random(seed)
    rows: list[Example] = []
    for example in examples:
        for _ in range(copies):
            draw = rng.random()
            if example.has_context or draw < 0.35:
                rows.append(example)
            elif draw < 0.55 and example.product != OUT_OF_SCOPE:
                rows.append(pool.agreeing(example, rng))
            elif draw < 0.7:
                rows.append(pool.stale(example, rng))
            else:
                rows.append(pool.misleading(example, rng))
    return rows
