import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.gather import FeatureGatherer
from deployments.protocol import FeatureBatch
from features.schema import ScreenEvent, UserFeatures
from features.store import FeatureStore, Reading, connect
from features.usage import RUN_KEY, usage_key

NOTHING = UserFeatures()
DEGRADED = ("recent_screens", "product_usage_60d")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Unplugged(FeatureStore):
    """The real store behind a cable that the test may pull."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.down, self.reads = False, 0

    async def reading(self, users: Sequence[str]) -> Reading:
        self.reads += 1
        if self.down:
            raise RedisConnectionError("no route to host")
        return await super().reading(users)


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port on which somebody listens who never answers."""
    over = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    over.set()
    server.close()
    await server.wait_closed()


async def test_features_of_a_batch_come_in_its_order(redis: Redis) -> None:
    now = datetime.now(UTC)
    store = FeatureStore(redis, clock=now.timestamp)
    screens = [ScreenEvent(f"e{i}", "ann", screen, now + timedelta(seconds=i)) for i, screen in enumerate("ab")]
    await store.write_screens(screens)
    await store.write_usage("r1", {"bob": {"card": 2}})
    await store.publish_run("r1")
    batch = await FeatureGatherer(store, 60.0)(["bob", "nobody", "ann", "bob"])
    bob = UserFeatures((), {"card": 2})
    assert batch.users == [bob, NOTHING, UserFeatures(("a", "b")), bob]
    assert batch.degraded == ()
    assert (batch.at_ms, batch.usage_run) == (int(now.timestamp() * 1000), "r1")


async def test_it_tells_the_end_of_the_window_of_the_run_that_it_read(redis: Redis) -> None:
    store = FeatureStore(redis)
    gather = FeatureGatherer(store, 60.0)
    for run in ("demo", "2026-11-99-60d-0123abcd"):
        await store.publish_run(run)
        await gather(["ann"])
        assert set(gather.levels()) == {"feature_store_breaker_open"}
    await store.publish_run("2026-11-25-60d-0123abcd")
    await gather(["ann"])
    ends = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    assert gather.levels()["usage_run_timestamp_seconds"] == ends
    await redis.delete(RUN_KEY)
    await gather(["ann"])
    assert gather.levels()["usage_run_timestamp_seconds"] == ends, "a run that has expired grows older"


async def test_a_dead_port_degrades_both_sources(dead_redis: Redis) -> None:
    gather = FeatureGatherer(FeatureStore(dead_redis), 60.0)
    assert await gather(["ann", "bob"]) == FeatureBatch([NOTHING, NOTHING], DEGRADED)
    assert gather.counts() == {"gather_failures_total": 1, "gather_skipped_total": 0}


async def test_a_store_that_does_not_answer_in_time_degrades(silent_port: int) -> None:
    redis = connect(f"redis://127.0.0.1:{silent_port}/0", 600.0)
    gather = FeatureGatherer(FeatureStore(redis), 0.02)
    assert await gather(["ann"]) == FeatureBatch([NOTHING], DEGRADED)
    await redis.aclose()


@pytest.mark.parametrize("broken", [usage_key("r1", "ann"), "screens:ann"])
async def test_a_value_of_another_kind_costs_nobody_else_their_features(redis: Redis, broken: str) -> None:
    store = FeatureStore(redis)
    await store.write_usage("r1", {"bob": {"loans": 2}})
    await store.publish_run("r1")
    await redis.hset(broken, mapping={"card": "often"})
    found = await FeatureGatherer(store, 60.0)(["ann", "bob"])
    assert (found.users, found.degraded) == ([NOTHING, UserFeatures((), {"loans": 2})], ())


async def test_a_run_that_cannot_be_read_degrades(redis: Redis) -> None:
    await redis.hset("usage:run", mapping={"card": "often"})
    assert await FeatureGatherer(FeatureStore(redis), 60.0)(["ann"]) == FeatureBatch([NOTHING], DEGRADED)


async def test_the_breaker_opens_lets_one_trial_through_and_closes(redis: Redis) -> None:
    store, clock = Unplugged(redis), Clock()
    breaker = CircuitBreaker(BreakerConfig(failures=2, pause_s=10), clock)
    gather = FeatureGatherer(store, 60.0, breaker)
    store.down = True
    for _ in range(5):
        assert (await gather(["ann"])).degraded == DEGRADED
    assert store.reads == 2
    assert gather.counts() == {"gather_failures_total": 2, "gather_skipped_total": 3}
    assert gather.levels() == {"feature_store_breaker_open": 1.0}
    clock.now = 10.0
    for _ in range(3):
        await gather(["ann"])
    assert store.reads == 3, "one trial, and it failed"
    store.down, clock.now = False, 20.0
    assert (await gather(["ann"])).degraded == ()
    assert gather.levels() == {"feature_store_breaker_open": 0.0}
    assert (await gather(["ann"])).degraded == ()
    assert store.reads == 5


async def test_the_trial_is_one_even_while_it_is_under_way(silent_port: int) -> None:
    redis = connect(f"redis://127.0.0.1:{silent_port}/0", 600.0)
    clock = Clock()
    breaker = CircuitBreaker(BreakerConfig(failures=1, pause_s=10), clock)
    breaker.failed()
    clock.now = 10.0
    gather = FeatureGatherer(FeatureStore(redis), 600.0, breaker)
    trial = asyncio.ensure_future(gather(["ann"]))
    other = asyncio.ensure_future(gather(["ann"]))
    assert (await other).degraded == DEGRADED
    assert not trial.done()
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    clock.now = 20.0
    assert breaker.allows(), "a trial that nobody waited for is followed by another"
    await redis.aclose()


def test_only_consecutive_failures_open_the_breaker() -> None:
    breaker = CircuitBreaker(BreakerConfig(failures=2), Clock())
    for _ in range(3):
        breaker.failed()
        breaker.succeeded()
    assert not breaker.open
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
