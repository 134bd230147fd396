"""Screen events from the stream into the store, on a real Redis."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from features.schema import SCREEN_STREAM, ScreenEvent
from features.store import FeatureStore, StoreConfig, connect
from features.stream import FOREIGN, IngesterConfig, ScreenIngester, publish

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


async def test_poison_that_cannot_be_set_aside_does_not_stop_the_others(
    redis: Redis, redis_server: LocalRedis, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [SCREEN_STREAM, "screens:*", "usage:*"]
    await redis.acl_setuser("narrow", enabled=True, nopass=True, keys=keys, commands=["+@all"])
    client = connect(redis_server.url.replace("redis://", "redis://narrow:any@"), 60.0)
    try:
        alive = ingester(client)
        await redis.xadd(SCREEN_STREAM, {"words": "of a customer"})
        await publish(redis, event(1))
        assert await alive.step() == 2
        await publish(redis, event(2))
        assert await alive.step() == 1
    finally:
        await client.aclose()
        await redis.acl_deluser("narrow")
    assert (await screens(redis), await unread(redis)) == (("s1", "s2"), 0)
    assert (alive.stored, alive.dead, await redis.exists(f"{SCREEN_STREAM}:dead")) == (2, 1, 0)
    assert "1 are dropped, not set aside: NoPermissionError" in caplog.text
    assert "words" not in caplog.text


async def test_poison_waits_for_memory(redis: Redis) -> None:
    alive = ingester(redis)
    await redis.xadd(SCREEN_STREAM, {"words": "of a customer"})
    await alive.housekeep()
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await alive.step()
    finally:
        await redis.config_set("maxmemory", 0)
    assert await alive.step() == 1
    assert (alive.dead, await redis.xlen(f"{SCREEN_STREAM}:dead")) == (1, 1)


async def test_a_user_whose_key_holds_something_else_does_not_stop_the_others(redis: Redis) -> None:
    alive = ingester(redis)
    await redis.set("screens:bo", "another program's")
    for number, user in enumerate(("ana", "bo", "cy")):
        await publish(redis, event(number, user))
    assert await alive.step() == 3
    assert (await screens(redis), await screens(redis, "cy")) == (("s0",), ("s2",))
    assert (alive.stored, alive.dead, await unread(redis)) == (2, 1, 0)
    letters: Any = await redis.xrange(f"{SCREEN_STREAM}:dead")
    assert [(letter["field:user_id"], letter["reason"]) for _, letter in letters] == [("bo", FOREIGN)]
    assert await redis.get("screens:bo") == "another program's"


async def test_entries_of_a_dead_consumer_are_taken_over(redis: Redis) -> None:
    alive = ingester(redis, block_ms=20)
    await alive.housekeep()
    await publish(redis, event(1))
    await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"})
    async with asyncio.timeout(60):
        while alive.stored == 0:
            await alive.step()
    assert await screens(redis) == ("s1",)
    assert await unread(redis) == 0


async def test_entries_deleted_before_they_were_stored_are_forgotten(redis: Redis) -> None:
    alive = ingester(redis, block_ms=20)
    await alive.housekeep()
    for number in range(3):
        await publish(redis, event(number))
    await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"})
    await redis.xtrim(SCREEN_STREAM, maxlen=1, approximate=False)
    async with asyncio.timeout(60):
        while alive.stored == 0 or await unread(redis):
            await alive.step()
    assert (alive.stored, await screens(redis)) == (1, ("s2",))
    await alive.housekeep()
    assert alive.lag == 0


async def test_what_is_stored_is_trimmed_and_what_is_not_is_kept(redis: Redis) -> None:
    alive = ingester(redis, batch=100)
    for number in range(350):
        await publish(redis, event(number))
    await alive.step()
    await alive.housekeep()
    assert await redis.xlen(SCREEN_STREAM) == 250
    while await alive.step():
        pass
    assert await redis.xlen(SCREEN_STREAM) == 0


async def test_lag_is_the_age_of_the_oldest_event_that_is_not_stored(redis: Redis) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    settings = IngesterConfig(batch=1, block_ms=1)
    alive = ScreenIngester(redis, FeatureStore(redis, STORE), settings, "alive", lambda: now)
    old = ScreenEvent("e1", "ana", "home", now)
    for seconds in (90, 60):
        fields: dict[Any, Any] = {**old.fields()}
        await redis.xadd(SCREEN_STREAM, fields, id=f"{int(now.timestamp() - seconds) * 1000}-0")
    levels = []
    for _ in range(3):
        await alive.housekeep()
        levels.append(alive.levels())
        await alive.step()
    assert levels == [
        {"screen_events_lag_milliseconds": milliseconds, "screen_events_lag_entries": entries}
        for milliseconds, entries in ((90_000, 2), (60_000, 1), (0, 0))
    ]


async def test_what_could_not_be_stored_is_tried_again_before_anything_new(redis: Redis) -> None:
    alive = ingester(redis, batch=2, claim_idle_ms=600_000, housekeeping_s=3600)
    assert await alive.step() == 0
    for number in range(5):
        await publish(redis, event(number))
    await redis.config_set("maxmemory", 1)
    try:
        for _ in range(4):
            with pytest.raises(ResponseError, match="maxmemory"):
                await alive.step()
    finally:
        await redis.config_set("maxmemory", 0)
    assert await unread(redis) == 2
    assert [await alive.step() for _ in range(3)] == [2, 2, 1]
    assert (alive.stored, await unread(redis)) == (5, 0)
    assert await screens(redis) == ("s2", "s3", "s4")


async def test_a_consumer_that_returns_under_its_name_goes_on_where_it_was(redis: Redis) -> None:
    before = ingester(redis, "fixed-name")
    await before.housekeep()
    await publish(redis, event(1))
    await redis.xreadgroup(GROUP, "fixed-name", {SCREEN_STREAM: ">"})
    await publish(redis, event(2))
    after = ingester(redis, "fixed-name", claim_idle_ms=600_000)
    assert [await after.step() for _ in range(2)] == [1, 1]
    assert await screens(redis) == ("s1", "s2")


async def test_more_than_a_batch_is_taken_over_at_once(redis: Redis) -> None:
    alive = ingester(redis, batch=2, housekeeping_s=600)
    await alive.housekeep()
    for number in range(7):
        await publish(redis, event(number))
    await redis.xreadgroup(GROUP, "dead", {SCREEN_STREAM: ">"})
    async with asyncio.timeout(60):
        while not await alive.housekeep():
            await redis.ping()
    assert [await alive.step() for _ in range(5)] == [2, 2, 2, 1, 0]
    assert (alive.stored, await unread(redis)) == (7, 0)


async def test_ingesters_share_the_work(redis: Redis, redis_server: LocalRedis) -> None:
    clients = [connect(redis_server.url, 60.0) for _ in range(2)]
    both = [ingester(client, name, batch=3, claim_idle_ms=600_000) for client, name in zip(clients, "ab", strict=True)]
    tasks = [asyncio.create_task(one.run()) for one in both]
    users = [f"u{number}" for number in range(300)]
    for user in users:
        await publish(redis, event(1, user))
    async with asyncio.timeout(60):
        while sum(one.stored for one in both) < len(users):
            await redis.ping()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=60)
    assert all(one.stored > 0 for one in both)
    assert sum(one.stored for one in both) == len(users)
    assert {await screens(redis, user) for user in users} == {("s1",)}
    assert await unread(redis) == 0
    for client in clients:
        await client.aclose()


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
    async with asyncio.timeout(60):
        while not (lost.failures and alive.stored):
            await redis.ping()
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=60)
    assert not running
    assert all(task.cancelled() for task in tasks)
    assert lost.counts()["screen_events_failures_total"] == lost.failures
    assert alive.counts() == {
        "screen_events_stored_total": 1,
        "screen_events_dead_total": 0,
        "screen_events_failures_total": 0,
    }
    await nowhere.aclose()
