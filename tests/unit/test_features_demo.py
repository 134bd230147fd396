"""Made-up users for a first look."""

from statistics import mean

import pytest
from redis.asyncio import Redis

from features.demo import PRODUCTS, RUN, RealUsage, seed, usage
from features.store import FeatureStore


def test_users_are_the_same_every_time() -> None:
    assert usage(50) == usage(50)
    assert usage(50, seed=1) != usage(50)
    assert list(usage(3)) == ["u1", "u2", "u3"]


def test_fewer_users_are_the_first_of_more() -> None:
    few, many = usage(10), usage(40)
    assert few == {user: many[user] for user in few}


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_products_are_owned_and_used_as_said(product: str) -> None:
    share, uses = PRODUCTS[product]
    people = usage(4000)
    counts = [products[product] for products in people.values() if product in products]
    assert len(counts) / len(people) == pytest.approx(share, abs=0.03)
    assert min(counts) == 1
    assert mean(counts) == pytest.approx(uses + 0.5, rel=0.15)


async def test_seeded_users_are_what_readers_see(redis: Redis) -> None:
    store = FeatureStore(redis)
    assert await seed(store, 20)
    assert not await seed(store, 20)
    people = usage(20)
    assert [f.product_usage_60d for f in await store.read(list(people))] == list(people.values())
    assert await redis.get("usage:run") == RUN
    assert (await store.read(["u21"]))[0].product_usage_60d == {}


async def test_usage_that_is_not_made_up_is_never_hidden(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.write_usage("real", {"u1": {"loans": 2}})
    await store.publish_run("real")
    with pytest.raises(RealUsage, match="readers see the run real, which demo users would hide"):
        await seed(store, 20)
    assert [f.product_usage_60d for f in await store.read(["u1", "u2"])] == [{"loans": 2}, {}]
