"""Journeys through the demo app: users mostly ask about the product whose screens they have just seen.

A journey starts at home, search or notifications, visits one to four screens of a product, sometimes a stray screen of
another product that the user owns, perhaps the help center, and ends with a message within minutes. The product is
mostly one that the user owns. Some ask without having seen a product (`STRAIGHT`), about another one than they saw
(`ELSEWHERE`), or about nothing that a desk knows (`OFF_TOPIC`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.demo import PRODUCTS
from features.labelled import CORPUS, OUT_OF_SCOPE, read_labelled
from features.population import PRODUCT_NAMES, Population, Stream, generator, population
from features.rows import DataError
from features.taxonomy import PRODUCT_SCREENS, SCREENS

SCREEN_NAMES = tuple(SCREENS)
STRAIGHT, ELSEWHERE, OFF_TOPIC = 0.08, 0.07, 0.06
"""Shares of all journeys."""
STRAY, HELP_CENTER = 0.15, 0.3
"""Shares of the journeys with a stray screen, and with the help center at the end."""
NOT_OWNED = 0.1
"""How often users ask about a product that they do not own, relative to one that they own."""
MAX_PAUSE_S, MAX_GAP_S = 600.0, 300.0
"""The longest time between the last screen and the message, and between two screens."""
_ASKED = np.sqrt([uses for _, uses in PRODUCTS.values()])
_ENTRANCES = [SCREEN_NAMES.index(name) for name in ("home", "search", "notifications")]
_COUNTS = np.array([len(PRODUCT_SCREENS[product]) for product in PRODUCT_NAMES])
_FIRST = np.array([SCREEN_NAMES.index(PRODUCT_SCREENS[product][0]) for product in PRODUCT_NAMES])
_SLOTS = 8
"""Entrance, stray, four screens of the product, stray, help center."""

Texts = Mapping[str, Sequence[str]]


def load_texts(path: Path = CORPUS) -> dict[str, list[str]]:
    """The distinct texts of each product, and of `OUT_OF_SCOPE`, in labelled messages; see `read_labelled`.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    texts: dict[str, dict[str, None]] = {}
    for where, row in read_labelled(path):
        if not row.text:
            raise DataError(f"{where}: column 'text' is empty")
        if row.product not in (*PRODUCT_NAMES, OUT_OF_SCOPE):
            names = ", ".join((*PRODUCT_NAMES, OUT_OF_SCOPE))
            raise DataError(f"{where}: column 'product': {row.product!r} is none of {names}")
        texts.setdefault(row.product, {})[row.text] = None
    if not texts.keys() - {OUT_OF_SCOPE}:
        raise DataError(f"{path}: no message about a product")
    return {product: list(texts[product]) for product in sorted(texts)}


@dataclass(frozen=True, slots=True)
class Journeys:
    """Any number of journeys, one row each."""

    user: NDArray[np.intp]
    """Row in the population."""
    product: NDArray[np.intp]
    """What the message is about: index into `PRODUCT_NAMES`, or just after its end for out of scope."""
    screen: NDArray[np.intp]
    """(n, slots), oldest first: index into `SCREEN_NAMES`, or -1 for none. At least one in each row."""
    before: NDArray[np.float64]
    """(n, slots): seconds from the screen to the message."""


def draw(people: Population, texts: Texts, n: int, rng: np.random.Generator) -> Journeys:
    """`n` journeys, about products that have texts."""
    user = people.draw(n, rng)
    owns = people.owns[user]
    weights = _ASKED * np.where(owns, 1.0, NOT_OWNED)
    asked = _choose(weights * [product in texts for product in PRODUCT_NAMES], rng)
    kind = rng.random(n)
    seen = np.where(kind < ELSEWHERE, _choose(_without(weights, asked), rng), asked)
    screen = _screens(seen, owns, rng)
    screen[kind > 1 - STRAIGHT, 1:-1] = -1
    off_topic = (rng.random(n) < OFF_TOPIC) & (OUT_OF_SCOPE in texts)
    return Journeys(user, np.where(off_topic, len(PRODUCT_NAMES), asked), screen, _seconds_before(screen >= 0, rng))


def draw_texts(product: NDArray[np.intp], texts: Texts, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A text of each product, and the product's name."""
    names = (*PRODUCT_NAMES, OUT_OF_SCOPE)
    return [
        (texts[names[column]][int(place * len(texts[names[column]]))], names[column])
        for column, place in zip(product.tolist(), rng.random(len(product)).tolist(), strict=True)
    ]


class Journey(NamedTuple):
    """One journey. Times are seconds before the message, oldest first."""

    user_id: str
    screens: list[tuple[float, str]]
    text: str
    product: str


def journeys(users: int, seed: int = 0, messages_file: Path | None = None) -> Iterator[Journey]:
    """An endless stream of journeys, for a caller that publishes the screens and then sends the message.

    Raises:
        ValueError: as `population` and `load_texts` do.
    """
    people, texts = population(users, seed), load_texts(messages_file or CORPUS)
    rng = generator(seed, Stream.LIVE)
    while True:
        block = draw(people, texts, 256, rng)
        messages = draw_texts(block.product, texts, rng)
        for row, (text, product) in enumerate(messages):
            slots = np.flatnonzero(block.screen[row] >= 0)
            screens = [(float(block.before[row, slot]), SCREEN_NAMES[block.screen[row, slot]]) for slot in slots]
            yield Journey(f"u{block.user[row] + 1}", screens, text, product)


def _choose(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """A column for each row, by weight."""
    upto = np.cumsum(weights, axis=1)
    return np.asarray((upto[:, :-1] <= rng.random((len(upto), 1)) * upto[:, -1:]).sum(axis=1))


def _without(weights: NDArray[np.float64], column: NDArray[np.intp]) -> NDArray[np.float64]:
    """The weights with one column of each row set to zero."""
    return np.where(np.arange(weights.shape[1]) == column[:, None], 0.0, weights)


def _screens(seen: NDArray[np.intp], owns: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    n = len(seen)
    screen = np.full((n, _SLOTS), -1)
    screen[:, 0] = rng.choice(_ENTRANCES, n, p=[0.6, 0.2, 0.2])
    length = rng.choice([1, 2, 3, 4], n, p=[0.35, 0.35, 0.2, 0.1])
    looked = _FIRST[seen][:, None] + (rng.random((n, 4)) * _COUNTS[seen][:, None]).astype(np.intp)
    screen[:, 2:6] = np.where(np.arange(4) < length[:, None], looked, -1)
    others = _without(owns.astype(np.float64), seen)
    stray = _choose(others, rng)
    glance = _FIRST[stray] + (rng.random(n) * _COUNTS[stray]).astype(np.intp)
    rows = np.flatnonzero((rng.random(n) < STRAY) & others.any(axis=1))
    screen[rows, rng.choice([1, 6], n)[rows]] = glance[rows]
    screen[rng.random(n) < HELP_CENTER, 7] = SCREEN_NAMES.index("help_center")
    return screen


def _seconds_before(present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    gap = np.clip(rng.lognormal(np.log(12), 1.0, present.shape), 1.0, MAX_GAP_S) * present
    pause = np.clip(rng.lognormal(np.log(30), 0.9, (len(present), 1)), 2.0, MAX_PAUSE_S)
    return np.asarray(pause + np.cumsum(gap[:, ::-1], axis=1)[:, ::-1] - gap)
