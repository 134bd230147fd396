"""Whatever dies, and whenever: every event is stored, none twice. Real processes, real signals, real Redis."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from local_redis import LocalRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from features import screens
from features.schema import SCREEN_STREAM, ScreenEvent
from features.store import FeatureStore, StoreConfig, connect
from features.stream import IngesterConfig, ScreenIngester, publish, publish_all
from tests.unit.redis_process import RedisProcess

ROOT = Path(__file__).resolve().parents[2]
GROUP = IngesterConfig().group
KEEP = StoreConfig().max_screens
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)


def journeys(users: int, rng: random.Random) -> list[ScreenEvent]:
    """Up to eight screens of each user, in no order, every fifth of them twice."""
    events = [
        ScreenEvent(f"{user}-{number}", f"u{user}", f"s{number}", START + timedelta(seconds=number))
        for user in range(users)
        for number in range(rng.randint(1, 8))
    ]
    events += rng.sample(events, len(events) // 5)
    rng.shuffle(events)
    return events


def expected(events: list[ScreenEvent]) -> dict[str, list[tuple[str, float]]]:
    """What an offline computation keeps of each user: the newest screens, once each, oldest first."""
    users: dict[str, set[tuple[float, str]]] = {}
    for event in events:
        users.setdefault(screens.key(event.user_id), set()).add(
            (event.at.timestamp() * 1000, f"{event.event_id}\x1f{event.screen}")
        )
    return {key: [(member, at) for at, member in sorted(seen)[-KEEP:]] for key, seen in users.items()}


async def stored(redis: Redis) -> dict[str, list[tuple[str, float]]]:
    keys = [str(key) for key in await redis.keys(screens.key("*"))]
    pipe = redis.pipeline(transaction=False)
    for key in keys:
        pipe.zrange(key, 0, -1, withscores=True)
    return dict(zip(keys, await pipe.execute(), strict=True))


@contextmanager
def ingester_process(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m features ingest`, killed at the end."""
    command = [sys.executable, "-m", "features", "ingest", "--redis-url", url, "--batch", "7"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=60)


async def stop_within_a_batch(redis: Redis, process: subprocess.Popen[bytes], again: list[ScreenEvent]) -> None:
    """Halt an ingester that has entries which it has not acknowledged."""
    while True:
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            pass
        if (await redis.xpending(SCREEN_STREAM, GROUP))["pending"]:
            break
        await publish_all(redis, again)  # it may have come to the end of the others meanwhile
        process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def running(redis: Redis) -> AsyncIterator[ScreenIngester]:
    """An ingester in this process that takes over soon."""
    config = IngesterConfig(batch=7, block_ms=50, claim_idle_ms=100, housekeeping_s=0.1)
    ingester = ScreenIngester(redis, FeatureStore(redis), config)
    task = asyncio.create_task(ingester.run())
    yield ingester
    task.cancel()
    await asyncio.wait([task], timeout=60)


async def until_done(redis: Redis) -> None:
    """Wait until all is acknowledged: then the ingester has trimmed it away."""
    async with asyncio.timeout(120):
        while True:
            if await redis.xlen(SCREEN_STREAM) == 0:
                break
            await asyncio.sleep(0.02)
    assert (await redis.xpending(SCREEN_STREAM, GROUP))["pending"] == 0


async def test_an_ingester_killed_at_any_moment_loses_and_doubles_nothing(
    redis: Redis, redis_server: LocalRedis
) -> None:
    rng = random.Random(5)
    events = journeys(400, rng)
    pipe = redis.pipeline(transaction=False)
    for event in events:
        fields: dict[Any, Any] = {**event.fields()}
        pipe.xadd(SCREEN_STREAM, fields)
    pipe.xadd(SCREEN_STREAM, {"poison": "1"})
    await pipe.execute()
    for kill in range(1, 5):
        with ingester_process(redis_server.url) as process:
            enough = 60 * kill + rng.randint(0, 20)  # users with a screen: the first events touch new ones
            async with asyncio.timeout(120):
                while await redis.dbsize() < enough:
                    assert process.poll() is None
                if kill == 4:
                    await stop_within_a_batch(redis, process, events[:99])
    assert (await redis.xpending(SCREEN_STREAM, GROUP))["pending"] > 0
    assert await redis.xlen(SCREEN_STREAM) > 0
    async with running(redis):
        await until_done(redis)
    assert await stored(redis) == expected(events)
    assert await redis.xlen(f"{SCREEN_STREAM}:dead") == 1


async def test_a_redis_killed_and_restarted_loses_and_doubles_nothing(tmp_path: Path) -> None:
    events = journeys(100, random.Random(6))
    with RedisProcess(tmp_path) as server:
        redis, own = (connect(f"redis://127.0.0.1:{server.port}/0", 2.0) for _ in range(2))
        async with running(own) as ingester:
            for number, event in enumerate(events):
                if number in (len(events) // 3, len(events) // 2):
                    server.kill()
                    server.start()
                while True:
                    with suppress(RedisError, OSError):
                        await publish(redis, event)
                        break
            await until_done(redis)
        assert ingester.failures > 0
        assert await redis.xlen(f"{SCREEN_STREAM}:dead") == 0
        assert await stored(redis) == expected(events)
        await redis.aclose()
        await own.aclose()
