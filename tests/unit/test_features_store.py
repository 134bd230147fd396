"""The online feature store, on a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError, ResponseError

from features.schema import ScreenEvent, UserFeatures
from features.snapshot import Snapshot, by_pipeline, snapshot
from features.store import FeatureStore, StoreConfig, connect
from features.usage import RUN_KEY, usage_key


def seen(user: str, *screens: str, ago_s: float = 60.0, event_id: str = "e") -> list[ScreenEvent]:
    """Events one second apart; the first one `ago_s` ago."""
    first = datetime.now(UTC) - timedelta(seconds=ago_s)
    return [
        ScreenEvent(f"{event_id}{i}", user, screen, first + timedelta(seconds=i)) for i, screen in enumerate(screens)
    ]


class CountingConnection(Connection):
    """A connection that counts what it sends."""

    sent = 0

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        CountingConnection.sent += 1
        await super().send_packed_command(command, check_health)


async def test_readers_at_once_all_learn_the_run(redis: Redis) -> None:
    """They share a store, so one may learn the run while another still waits for an answer without it."""
    for run in ("r1", "r2"):
        await FeatureStore(redis).write_usage(run, {"ana": {run: 1}})
    store = FeatureStore(redis)
    for run in ("r1", "r2"):
        await FeatureStore(redis).publish_run(run)
        readings = await asyncio.gather(*(store.reading(["ana"]) for _ in range(5)))
        assert [(r.usage_run, dict(r.users[0].product_usage_60d)) for r in readings] == [(run, {run: 1})] * 5


@given(
    screens=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), min_size=1, max_size=20), max_size=6
    ),
    usage=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.integers(1, 10**9), max_size=4
    ),
    user=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    old=st.integers(0, 6),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
async def test_the_script_reads_what_the_pipeline_reads(
    redis: Redis, screens: list[str], usage: dict[str, int], user: str, old: int
) -> None:
    """The first `old` screens were seen before the moment from which they count."""
    await redis.flushdb()
    store = FeatureStore(redis)
    events, recent = seen(user, *screens), screens[old:]
    await store.write_screens(events)
    await store.write_usage("r1", {user: usage})
    await store.publish_run("r1")
    since = int(1000 * (events[old].at if recent else datetime.now(UTC)).timestamp())
    script = await snapshot(redis, [user, "nobody"], since, 5, None)
    assert script == ("r1", [UserFeatures(tuple(recent[-5:]), usage), UserFeatures()])
    assert script == await by_pipeline(redis, [user, "nobody"], since, 5, "r1")


async def test_any_number_of_users_costs_one_round_trip(redis: Redis, redis_server: LocalRedis) -> None:
    users = [f"u{i}" for i in range(300)]
    await FeatureStore(redis).write_usage("r1", {user: {"loans": i + 1} for i, user in enumerate(users)})
    await FeatureStore(redis).publish_run("r1")
    counting = connect(redis_server.url, 60.0, connection_class=CountingConnection)
    store = FeatureStore(counting)
    await store.read(users[:1])
    before = CountingConnection.sent
    features = await store.read(users)
    assert CountingConnection.sent - before == 1
    assert [f.product_usage_60d for f in features] == [{"loans": i + 1} for i in range(300)]
    await counting.aclose()


async def test_features_come_in_the_order_asked_for(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.write_screens(seen("ana", "home", "card_limit") + seen("bo", "loan_simulator"))
    await store.write_usage("r1", {"bo": {"loans": 2}})
    await store.publish_run("r1")
    nobody = UserFeatures()
    ana, bo = UserFeatures(("home", "card_limit")), UserFeatures(("loan_simulator",), {"loans": 2})
    assert await store.read(["bo", "nobody", "ana", "bo"]) == [bo, nobody, ana, bo]
    assert await store.read([]) == []


async def test_run_is_seen_once_published_and_replaces_the_one_before(redis: Redis) -> None:
    writer, reader = FeatureStore(redis), FeatureStore(redis)
    await writer.write_usage("monday", {"ana": {"loans": 1}, "bo": {"loans": 5}})
    assert (await reader.read(["ana"]))[0].product_usage_60d == {}
    await writer.publish_run("monday")
    assert (await reader.read(["ana"]))[0].product_usage_60d == {"loans": 1}
    await writer.write_usage("tuesday", {"ana": {"insurance": 2}})
    assert (await reader.read(["ana"]))[0].product_usage_60d == {"loans": 1}
    await writer.publish_run("tuesday")
    assert [f.product_usage_60d for f in await reader.read(["ana", "bo"])] == [{"insurance": 2}, {}]


async def test_usage_written_again_replaces_products_and_may_be_empty(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.publish_run("r1")
    await store.write_usage("r1", {"ana": {"loans": 1, "security": 1}, "bo": {"loans": 1}})
    await store.write_usage("r1", {"ana": {"loans": 3}, "bo": {}})
    assert [f.product_usage_60d for f in await store.read(["ana", "bo"])] == [{"loans": 3}, {}]


async def test_keeps_the_newest_screens_by_event_time(redis: Redis) -> None:
    store = FeatureStore(redis, StoreConfig(max_screens=3))
    events = seen("ana", "a", "b", "c", "d", "e")
    for event in (events[4], events[0], events[2], events[1], events[3], events[2]):
        await store.write_screens([event])
    assert (await store.read(["ana"]))[0].recent_screens == ("c", "d", "e")
    assert await redis.zcard("screens:ana") == 3


@pytest.mark.parametrize("event_id", ["id with blanks", "a\x1fb", "\x1f", "ü" * 60, ":*?"])
@pytest.mark.parametrize("screen", ["home", "a\x1fb", "karte/übersicht"])
async def test_any_identifier_leaves_the_screen_as_it_was(redis: Redis, event_id: str, screen: str) -> None:
    store = FeatureStore(redis)
    await store.write_screens(seen("ana", screen, event_id=event_id))
    assert (await store.read(["ana"]))[0].recent_screens == (screen,)


async def test_screens_older_than_the_window_are_not_returned(redis: Redis) -> None:
    store = FeatureStore(redis, StoreConfig(screen_window_s=600))
    await store.write_screens(seen("ana", "old", ago_s=700) + seen("ana", "new", ago_s=60, event_id="n"))
    await store.write_screens(seen("bo", "old", ago_s=700))
    assert [f.recent_screens for f in await store.read(["ana", "bo"])] == [("new",), ()]


async def test_what_nobody_renews_expires(redis: Redis) -> None:
    store = FeatureStore(redis, StoreConfig(screen_window_s=600))
    await store.write_screens(seen("ana", "home"))
    await store.write_usage("r1", {"ana": {"loans": 1}}, 7200)
    await store.publish_run("r1", 7200)
    lives: Sequence[int] = [await redis.ttl(key) for key in (RUN_KEY, usage_key("r1", "ana"), "screens:ana")]
    assert 890 <= lives[2] <= 900
    assert 7190 <= lives[1] <= 7200
    assert lives[1] <= lives[0] <= 7200, "else nothing would be read under a run that stays"


async def test_a_dead_store_is_an_error_not_a_retry() -> None:
    client = connect("redis://127.0.0.1:1/0", 0.5)
    with pytest.raises((RedisError, OSError)):
        await FeatureStore(client).read(["ana"])
    await client.aclose()


@pytest.mark.parametrize("way", [snapshot, by_pipeline])
async def test_a_key_that_holds_something_else_costs_nobody_else_their_features(
    redis: Redis, way: Callable[..., Awaitable[Snapshot]]
) -> None:
    store = FeatureStore(redis)
    await store.write_screens([*seen("ana", "home"), *seen("bo", "card")])
    await store.write_usage("r1", {"ana": {"loans": 1}})
    await store.publish_run("r1")
    await redis.set("screens:ana", "another program's")
    await redis.rpush(usage_key("r1", "bo"), "another program's")
    run, features = await way(redis, ["ana", "bo"], 0, 5, "r1")
    assert run == "r1"
    assert features == [UserFeatures((), {"loans": 1}), UserFeatures(("card",), {})]


@pytest.mark.parametrize("way", [snapshot, by_pipeline])
async def test_bytes_that_are_not_utf8_and_uses_that_are_no_numbers_cost_nobody_else_their_features(
    redis: Redis, way: Callable[..., Awaitable[Snapshot]]
) -> None:
    store = FeatureStore(redis)
    await store.write_screens(seen("bo", "card"))
    await store.publish_run("r1")
    now_ms = datetime.now(UTC).timestamp() * 1000
    await redis.zadd("screens:ana", {b"e1\x1fho\xffme": now_ms})
    broken = b'{"lo\xffans":2,"cards":3.5,"mortgages":1,"security":' + b"9" * 24 + b',"loans":[2],"fees":-1}'
    await redis.hset(usage_key("r1", "ana"), "ana", broken)
    run, features = await way(redis, ["ana", "bo"], 0, 5, "r1")
    assert run == "r1"
    assert features == [UserFeatures(("ho\ufffdme",), {"lo\ufffdans": 2, "mortgages": 1}), UserFeatures(("card",), {})]


async def test_a_run_key_that_holds_something_else_is_an_error(redis: Redis) -> None:
    await redis.hset(RUN_KEY, mapping={"a": "1"})
    for way in (snapshot, by_pipeline):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await way(redis, ["ana"], 0, 5, None)


@pytest.mark.parametrize("way", [snapshot, by_pipeline])
@pytest.mark.parametrize("forbidden", ["screens:ana", usage_key("r1", "ana")])
async def test_a_key_that_may_not_be_read_is_an_error(
    redis: Redis, redis_server: LocalRedis, way: Callable[..., Awaitable[Snapshot]], forbidden: str
) -> None:
    """An answer without the features would not say that it lacks them."""
    allowed = {RUN_KEY, "screens:ana", usage_key("r1", "ana")} - {forbidden}
    await redis.acl_setuser("reader", enabled=True, passwords="+pw", commands=["+@all"], keys=list(allowed), reset=True)
    await FeatureStore(redis).publish_run("r1")
    reader = connect(redis_server.url.replace("://", "://reader:pw@"), 60.0)
    with pytest.raises(ResponseError):
        await way(reader, ["ana"], 0, 5, "r1")
    await reader.aclose()
    await redis.acl_deluser("reader")
