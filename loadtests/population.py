"""Many users in the feature store, to see what their number costs."""

import asyncio

from features import demo
from features.store import FeatureStore, connect

USERS = demo.USERS
"""Users that have usage anyhow, u1 to u300."""
RUN = "population"
CHUNK = 5_000


def populate(redis_url: str, first: int, last: int) -> None:
    """Give users u<first> to u<last> the usage of some demo user, in the run that readers then see."""
    asyncio.run(_populate(redis_url, first, last))


async def _populate(redis_url: str, first: int, last: int) -> None:
    usage = list(demo.usage(USERS).values())
    redis = connect(redis_url, 60.0)
    try:
        store = FeatureStore(redis)
        for begin in range(first, last + 1, CHUNK):
            numbers = range(begin, min(begin + CHUNK, last + 1))
            await store.write_usage(RUN, {f"u{i}": usage[i % len(usage)] for i in numbers})
        await store.publish_run(RUN)
    finally:
        await redis.aclose()
