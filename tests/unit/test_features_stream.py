"""Screen events from the stream into the store, on a real Redis."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.schema import SCREEN_STREAM, ScreenEvent
from features.store import FeatureStore, StoreConfig, connect
from features.stream import IngesterConfig, ScreenIngester, publish

GROUP = IngesterConfig().group
STORE = StoreConfig(max_screens=3, screen_window_s=86_400)
START = datetime.now(UTC) - timedelta(minutes=10)


def ingester(redis: Redis, consumer: str = "alive", **config: Any) -> ScreenIngester:
    """An ingester that keeps house before every read and hardly waits for entries."""
    settings = IngesterConfig.model_validate({"block_ms": 1, "claim_idle_ms": 100, "housekeeping_s": 1e-6, **config})
    return ScreenIngester(redis, FeatureStore(redis, STORE), settings, consumer)


def event(number: int, user: str = "ana") -> ScreenEvent:
    """Event `number` of a user: screen `s<number>`, seen that many seconds after the start."""
    return ScreenEvent(f"e{number}", user, f"s{number}", START + timedelta(seconds=number))


async def screens(redis: Redis, user: str = "ana") -> tuple[str, ...]:
    return (await FeatureStore(redis, STORE).read([user]))[0].recent_screens


async def unread(redis: Redis) -> int:
    """How many entries are delivered and not acknowledged."""
    return int((await redis.xpending(SCREEN_STREAM, GROUP))["pending"])


async def test_published_events_reach_the_store(redis: Redis) -> None:
    for e in (event(1), event(2), event(1, "bo")):
        await publish(redis, e)
    alive = ingester(redis)
    assert await alive.step() == 3
    assert (await screens(redis), await screens(redis, "bo")) == (("s1", "s2"), ("s1",))
    assert (alive.stored, alive.dead, await unread(redis)) == (3, 0, 0)
    assert await alive.step() == 0


async def test_late_events_take_their_place_in_event_time(redis: Redis) -> None:
    alive = ingester(redis)
    for batch in ([5, 3], [4], [1, 2]):
        for number in batch:
            await publish(redis, event(number))
        await alive.step()
    assert await screens(redis) == ("s3", "s4", "s5")


async def test_duplicates_count_once(redis: Redis) -> None:
    alive, e = ingester(redis), event(1)
    for _ in range(2):
        await publish(redis, e)
        await publish(redis, e)
        await alive.step()
    assert await screens(redis) == ("s1",)
    assert (alive.stored, await unread(redis)) == (4, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"at": "2999-01-01T00:00:00Z"}, "at: 2999-01-01T00:00:00Z lies in the future"),
        ({"at": "noon"}, "at"),
        ({"screen": ""}, "screen"),
        ({"user_id": b"\xff\xfe"}, "user_id: not UTF-8"),
        ({b"\xff": "1"}, "unknown field"),
    ],
)
async def test_poison_is_set_aside_and_its_neighbours_stored(redis: Redis, change: dict[Any, Any], reason: str) -> None:
    alive = ingester(redis)
    await publish(redis, event(1))
    fields: dict[Any, Any] = {**event(2).fields(), **change}
    poison = await redis.xadd(SCREEN_STREAM, fields)
    await publish(redis, event(3))
    assert await alive.step() == 3
    assert await screens(redis) == ("s1", "s3")
    assert (alive.stored, alive.dead, await unread(redis)) == (2, 1, 0)
    letters: Any = await redis.xrange(f"{SCREEN_STREAM}:dead")
    ((_, letter),) = letters
    assert letter["entry"] == poison
    assert reason in letter["reason"]
    assert letter["field:event_id"] == "e2"


async def test_entries_of_a_dead_consumer_are_taken_over(redis: Redis) -> None:
    alive = ingester(redis, block_ms=20)
    await alive.create_group()
    await publish(redis, event(1))
    await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"})
    async with asyncio.timeout(20):
        while alive.stored == 0:
            await alive.step()
    assert await screens(redis) == ("s1",)
    assert await unread(redis) == 0


async def test_entries_deleted_before_they_were_stored_are_forgotten(redis: Redis) -> None:
    alive = ingester(redis, block_ms=20)
    await alive.create_group()
    for number in range(3):
        await publish(redis, event(number))
    await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"})
    await redis.xtrim(SCREEN_STREAM, maxlen=1, approximate=False)
    async with asyncio.timeout(20):
        while alive.stored == 0 or await unread(redis):
            await alive.step()
    assert (alive.stored, await screens(redis)) == (1, ("s2",))
    await alive.housekeep()
    assert alive.lag == 0


async def test_what_all_have_read_is_trimmed(redis: Redis) -> None:
    alive = ingester(redis)
    for number in range(350):
        await publish(redis, event(number))
    assert await alive.step() == 350
    await alive.housekeep()
    assert await redis.xlen(SCREEN_STREAM) < 150


@pytest.mark.parametrize("holder", ["dead consumer", "other group"])
async def test_what_somebody_still_needs_is_not_trimmed(redis: Redis, holder: str) -> None:
    alive = ingester(redis, claim_idle_ms=600_000)
    await alive.create_group()
    for number in range(350):
        await publish(redis, event(number))
    if holder == "dead consumer":
        await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"}, count=1)
    else:
        await redis.xgroup_create(SCREEN_STREAM, "audit", id="0")
    await alive.step()
    await alive.housekeep()
    assert await redis.xlen(SCREEN_STREAM) == 350


async def test_lag_is_the_time_between_the_newest_entry_and_the_last_one_read(redis: Redis) -> None:
    alive = ingester(redis, batch=1)
    for moment in (1000, 4000):
        fields: dict[Any, Any] = {**event(0).fields()}
        await redis.xadd(SCREEN_STREAM, fields, id=f"{moment}-0")
    lags = []
    for _ in range(2):
        await alive.step()
        await alive.housekeep()
        lags.append(alive.levels()["screen_events_lag_milliseconds"])
    assert lags == [3000, 0]


async def test_a_group_that_was_lost_is_made_anew(redis: Redis) -> None:
    alive = ingester(redis, housekeeping_s=600)
    await alive.step()
    await redis.flushall()
    await publish(redis, event(1))
    assert [await alive.step(), await alive.step()] == [0, 1]
    assert await screens(redis) == ("s1",)


async def test_run_waits_for_a_store_and_stops_when_told(redis: Redis, redis_server: LocalRedis) -> None:
    nowhere = connect("redis://127.0.0.1:1/0", 1.0)
    lost, alive = ingester(nowhere), ingester(redis)
    tasks = [asyncio.create_task(lost.run()), asyncio.create_task(alive.run())]
    await publish(redis, event(1))
    async with asyncio.timeout(20):
        while not (lost.failures and alive.stored):
            await redis.ping()
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=20)
    assert not running
    assert all(task.cancelled() for task in tasks)
    assert lost.counts()["screen_events_failures_total"] == lost.failures
    assert alive.counts() == {
        "screen_events_stored_total": 1,
        "screen_events_dead_total": 0,
        "screen_events_failures_total": 0,
    }
    await nowhere.aclose()
