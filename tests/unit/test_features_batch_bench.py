"""The benchmark of `materialize` has runs of its own, and removes them alone."""

import polars as pl
import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.batch_bench import own_run
from features.usage_writer import UsageWriter

ONE_USE = {"user_id": ["u1"], "product": ["a"], "uses": [1]}


async def test_what_is_written_under_another_name_stays(redis: Redis, redis_server: LocalRedis) -> None:
    live = ["usage:run", "usage:2026-11-25-60d-0123abcd:u1", "usage-progress:2026-11-25-60d-0123abcd:1000:0"]
    for key in live:
        await redis.set(key, "live")
    with own_run(redis_server.url) as one, own_run(redis_server.url) as other:
        for prefix in (one, other):
            await redis.set(f"usage:{prefix}2026-11-25-60d-0123abcd:u1", "bench")
            await redis.set(f"usage-progress:{prefix}2026-11-25-60d-0123abcd:1000:0", "bench")
        assert await redis.dbsize() == len(live) + 4
    assert sorted(await redis.keys()) == sorted(live)


async def test_a_run_that_fails_leaves_nothing(redis: Redis, redis_server: LocalRedis) -> None:
    def fail() -> None:
        with own_run(redis_server.url) as prefix:
            UsageWriter(redis_server.url).write(f"{prefix}run", 0, pl.DataFrame(ONE_USE))
            raise ChildProcessError

    with pytest.raises(ChildProcessError):
        fail()
    assert await redis.keys() == []
