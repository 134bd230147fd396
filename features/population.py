"""A made-up population: who owns which product and how active they are.

Everything follows from the seed; `u7` owns the same products whatever the number of users is.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from features.demo import PRODUCTS

PRODUCT_NAMES = tuple(PRODUCTS)
"""The products in the order of all arrays' columns."""
SPREAD = 1.0
"""Standard deviation of the logarithm of activity: the most active tenth make two fifths of all uses."""
_SHARES = np.array([share for share, _ in PRODUCTS.values()])
_USES_A_DAY = np.array([uses / 60 for _, uses in PRODUCTS.values()])


class Stream(IntEnum):
    """Purposes of random numbers; each has its own generator."""

    OWNERSHIP = 1
    ACTIVITY = 2
    USAGE = 3
    JOURNEYS = 4
    LIVE = 5
    SCREENS = 6
    IDS = 7


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator for a purpose, for example `Stream.USAGE` and a day."""
    return np.random.default_rng([seed, *key])


@dataclass(frozen=True, slots=True)
class Population:
    """Users `u1` to `u<n>`; row i is user `u<i+1>`.

    About 3 in 10,000 own no product: they never appear in the usage log, but browse and ask.
    """

    owns: NDArray[np.bool_]
    """Whether a user (row) owns a product (column)."""
    activity: NDArray[np.float64]
    """How active each user is: lognormal with mean 1, independent of what they own and of their number."""

    def __len__(self) -> int:
        return len(self.activity)

    def daily_uses(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """User, product and mean uses on an average day, one entry for each product that somebody owns."""
        user, product = np.nonzero(self.owns)
        return user, product, _USES_A_DAY[product] * self.activity[user]

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """`n` users with replacement, in proportion to their activity."""
        upto = np.cumsum(self.activity)
        return np.asarray(np.searchsorted(upto[:-1], rng.random(n) * upto[-1], side="right"))


def population(users: int, seed: int = 0) -> Population:
    """Users who own products as often as the demo's users do (`features.demo.PRODUCTS`).

    Raises:
        ValueError: less than one user, or a negative seed.
    """
    if users < 1:
        raise ValueError(f"users: {users} is less than 1")
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative")
    return Population(
        owns=generator(seed, Stream.OWNERSHIP).random((users, len(PRODUCTS))) < _SHARES,
        activity=generator(seed, Stream.ACTIVITY).lognormal(-(SPREAD**2) / 2, SPREAD, users),
    )
