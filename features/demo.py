"""Demo users for a first look: product usage of a few hundred made-up people, `u1` to `u300`."""

import random

from features.store import FeatureStore

RUN = "demo"
USERS = 300
PRODUCTS = {
    "checking_account": (0.95, 40),
    "transfers": (0.8, 25),
    "credit_card": (0.7, 30),
    "bill_payments": (0.6, 10),
    "savings_account": (0.4, 6),
    "security": (0.15, 2),
    "loans": (0.2, 4),
    "investments": (0.2, 8),
    "insurance": (0.2, 2),
}
"""Product to the share of people who use it and their mean uses in 60 days."""


def usage(users: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Usage of users `u1` to `u<users>`: owners of a product use it a geometric number of times."""
    rng = random.Random(seed)
    return {
        f"u{i}": {
            product: 1 + int(rng.expovariate(1 / mean))
            for product, (share, mean) in PRODUCTS.items()
            if rng.random() < share
        }
        for i in range(1, users + 1)
    }


class RealUsage(ValueError):
    """The published run is not the demo's; the message names it."""


async def seed(store: FeatureStore, users: int) -> bool:
    """Write and publish the demo users' usage; if it is published already, that renews its expiry.

    Returns:
        Whether no run was published before.

    Raises:
        RealUsage: another run is published, which this one would hide.
    """
    present = (await store.reading([])).usage_run
    if present not in (None, RUN):
        raise RealUsage(f"readers see the run {present}, which demo users would hide: give another Redis")
    await store.write_usage(RUN, usage(users))
    await store.publish_run(RUN)
    return present is None
