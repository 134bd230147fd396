"""What a bundle is measured on: the test split by kind, and the hold-out written by another author."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.context_sampling import ContextPool
from models.data import CORPUS, OUT_OF_SCOPE, Example, Split, is_corpus, load, split

HOLDOUT = CORPUS / "holdout"


def by_kind(rows: Sequence[Example], seed: int = 0) -> dict[str, list[Example]]:
    """Rows as `clear` (out-of-scope ones included), `ambiguous` (all with a context) and `misleading`.

    Misleading rows are the clear ones, each with the context of some row about another product; if no other product
    has contexts, the row is left out.
    """
    pool, rng = ContextPool(rows), random.Random(seed)
    clear = [row for row in rows if not row.has_context and row.product != OUT_OF_SCOPE]
    sets = {
        "clear": clear + [row for row in rows if row.product == OUT_OF_SCOPE and not row.has_context],
        "ambiguous": [row for row in rows if row.has_context],
        "misleading": [misled for row in clear if (misled := pool.misleading(row, rng)).has_context],
    }
    return {name: members for name, members in sets.items() if members}


def test_sets(parts: Split, data: Path) -> dict[str, list[Example]]:
    """The sets of a bundle trained on the rows of `data`: its test split, and half of the own corpus' hold-out.

    Without a test split the validation rows stand in, under names that say so.
    """
    if parts.test:
        sets = by_kind(parts.test)
    else:
        sets = {f"validation_{name}": rows for name, rows in by_kind(parts.validation).items()}
    if is_corpus(data):
        sets |= {f"holdout_{name}": rows for name, rows in by_kind(_holdout().test).items()}
    return sets


def text_sets(sets: Mapping[str, Sequence[Example]]) -> dict[str, Sequence[Example]]:
    """The sets with rows about products whose messages need no context; where each needs it, all of them."""
    about = {name: rows for name, rows in sets.items() if any(row.product != OUT_OF_SCOPE for row in rows)}
    return {name: rows for name, rows in about.items() if not any(row.has_context for row in rows)} or about


def with_holdout(parts: Split, data: Path) -> Split:
    """The own corpus' validation rows with the other half of the hold-out, which no network is trained on.

    That half alone calibrates: the corpus is written to be hard, and its rows would make every confidence too low.
    """
    if not is_corpus(data):
        return parts
    half = _holdout().validation
    return Split(parts.train, parts.validation + half, parts.test, calibration=half)


def _holdout() -> Split:
    return split(load(HOLDOUT), validation=0.5, test=0.5)
