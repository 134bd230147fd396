"""Demo users for a first look: product usage of a few hundred made-up people."""

import random

from features.store import FeatureStore

RUN = "demo"
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
    """Usage of users `u1` to `u<users>`: who owns a product uses it a geometric number of times."""
    rng = random.Random(seed)
    return {
        f"u{i}": {
            product: 1 + int(rng.expovariate(1 / mean))
            for product, (share, mean) in PRODUCTS.items()
            if rng.random() < share
        }
        for i in range(1, users + 1)
    }


async def seed(store: FeatureStore, users: int) -> None:
    """Write the demo users' usage and make it the run that readers see."""
    await store.write_usage(RUN, usage(users))
    await store.publish_run(RUN)
