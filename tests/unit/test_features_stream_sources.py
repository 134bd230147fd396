"""Ingesters with other sources than a Redis stream, and with a Redis that refuses them."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from features.__main__ import main
from features.consumer_group import Backlog, Entry
from features.schema import SCREEN_STREAM, ScreenEvent
from features.store import FeatureStore, connect
from features.stream import IngesterConfig, ScreenIngester, error_reason, publish, publish_all
from tests.unit.redis_process import RedisProcess


class ListGroup:
    """The only consumer of a list."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.waiting, self.given = list(entries), dict[str, Entry]()
        self.aside: list[tuple[Entry, str]] = []
        self.broken = False

    async def create(self) -> None: ...

    async def read_new(self, count: int, block_ms: int) -> list[Entry]:
        new, self.waiting = self.waiting[:count], self.waiting[count:]
        self.given |= {entry[0]: entry for entry in new}
        if self.broken:
            raise OSError("the list is gone")
        return new

    async def read_unacknowledged(self, count: int) -> list[Entry]:
        return list(self.given.values())[:count]

    async def acknowledge(self, entry_ids: Iterable[str]) -> None:
        for entry_id in entry_ids:
            del self.given[entry_id]

    async def take_over(self, idle_ms: int, count: int) -> bool:
        return False

    async def set_aside(self, poison: Sequence[tuple[Entry, str]], keep: int) -> None:
        self.aside += poison

    async def trim(self) -> None: ...

    async def backlog(self) -> Backlog:
        return Backlog(len(self.waiting) + len(self.given), None)

    async def forget_consumers(self, idle_ms: int) -> None: ...


async def test_events_come_from_any_group(redis: Redis) -> None:
    now = datetime.now(UTC)
    events = [ScreenEvent(f"e{n}", "ana", f"s{n}", now - timedelta(seconds=9 - n)) for n in range(4)]
    entries = [(f"{n}", event.fields()) for n, event in enumerate(events)]
    group, store = ListGroup([*entries, ("4", {"at": "noon"})]), FeatureStore(redis)
    ingester = ScreenIngester(redis, store, IngesterConfig(batch=3), group=group)
    group.broken = True
    with pytest.raises(OSError, match="gone"):
        await ingester.step()
    assert (ingester.backlog, ingester.stored) == (5, 0)
    group.broken = False
    assert [await ingester.step() for _ in range(3)] == [3, 2, 0]
    assert (await store.read(["ana"]))[0].recent_screens == ("s0", "s1", "s2", "s3")
    assert (ingester.stored, ingester.dead, group.given) == (4, 1, {})
    assert [entry for entry, _ in group.aside] == [("4", {"at": "noon"})]
    assert await redis.exists(SCREEN_STREAM) == 0


async def test_why_it_waits_is_logged_without_what_it_would_have_stored(
    dead_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ingester = ScreenIngester(dead_redis, FeatureStore(dead_redis))
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(ingester.run())
        async with asyncio.timeout(60):
            while not ingester.failures:
                await asyncio.wait([task], timeout=0.01)
        task.cancel()
        await asyncio.wait([task])
    assert caplog.messages[0].startswith("screen events: ConnectionError: Error 111 connecting to 127.0.0.1:")


async def test_what_is_told_of_an_error_holds_no_arguments(redis: Redis) -> None:
    pipe = redis.pipeline(transaction=False)
    await redis.set("screens:ana", 1)
    pipe.zadd("screens:ana", {"secret": 1})
    with pytest.raises(ResponseError) as refused:
        await pipe.execute()
    assert "ana" in str(refused.value)
    assert "WRONGTYPE" in error_reason(refused.value)
    assert "ana" not in error_reason(refused.value)
    pipe = redis.pipeline(transaction=False)
    pipe.execute_command("NOTHING", "ana")
    with pytest.raises(ResponseError) as unknown:
        await pipe.execute()
    assert "NOTHING" in error_reason(unknown.value)
    assert "ana" not in error_reason(unknown.value)
    assert error_reason(RedisConnectionError()) == "ConnectionError"


class TestCommand:
    @pytest.mark.parametrize("credentials", ["", ":wrong-secret@", "nobody:wrong-secret@"])
    def test_a_refused_password_is_one_line(
        self, tmp_path: Path, credentials: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with RedisProcess(tmp_path, password="right-secret") as server:
            assert main(["ingest", "--redis-url", f"redis://{credentials}127.0.0.1:{server.port}/0"]) == 2
        self._refused(capsys.readouterr().err)

    @pytest.mark.usefixtures("redis")
    def test_a_database_that_is_not_there_is_one_line(
        self, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["ingest", "--redis-url", f"{redis_server.url.rpartition('/')[0]}/9999"]) == 2
        self._refused(capsys.readouterr().err)

    async def test_a_stream_that_is_none_is_one_line(
        self, redis: Redis, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await redis.set(SCREEN_STREAM, "another program's")
        assert await asyncio.to_thread(main, ["ingest", "--redis-url", redis_server.url]) == 2
        self._refused(capsys.readouterr().err)

    def test_a_window_longer_than_redis_takes_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ingest", "--screen-window-s", str(10**12)]) == 2
        assert capsys.readouterr().err.startswith("error: screen_window_s: Input should be less than or equal to ")

    def _refused(self, errors: str) -> None:
        assert errors.startswith("error: Redis refused a command: ")
        assert errors.count("\n") == 1
        assert "secret" not in errors


async def test_an_unreachable_redis_is_waited_for(dead_redis: Redis) -> None:
    await ScreenIngester(dead_redis, FeatureStore(dead_redis)).prepare()


async def test_a_redis_without_memory_is_waited_for(redis: Redis, redis_server: LocalRedis) -> None:
    client = connect(redis_server.url, 60.0)
    await redis.config_set("maxmemory", 1)
    try:
        await ScreenIngester(client, FeatureStore(client)).prepare()
    finally:
        await redis.config_set("maxmemory", 0)
        await client.aclose()


async def test_a_stream_that_fills_the_memory_is_trimmed_and_what_waits_is_stored(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with RedisProcess(tmp_path) as server:
        redis = connect(f"redis://127.0.0.1:{server.port}/0", 60.0)
        store = FeatureStore(redis)
        await publish_all(redis, [ScreenEvent(f"e{n}", "ben", "cards", now) for n in range(10_000)])
        untidy = ScreenIngester(redis, store, IngesterConfig(batch=500, housekeeping_s=3600))
        assert [await untidy.step() for _ in range(20)] == [500] * 20  # a larger batch leaves buffers that shrink later
        await publish(redis, ScreenEvent("last", "ana", "loans", now))
        await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"] - 100_000)
        with pytest.raises(OutOfMemoryError):
            await publish(redis, ScreenEvent("refused", "ana", "loans", now))
        ingester = ScreenIngester(redis, store)
        assert await ingester.step() == 1
        assert ingester.backlog == 1
        assert (await store.read(["ana"]))[0].recent_screens == ("loans",)
        await redis.aclose()
