"""The benchmark of `materialize` has runs of its own, and removes them alone."""

from pathlib import Path

import polars as pl
import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from features.batch_bench import own_run
from features.usage import usage_key
from features.usage_writer import UsageWriter
from tests.unit.redis_process import RedisProcess, cluster_port, join

ONE_USE = {"user_id": ["u1"], "product": ["a"], "uses": [1]}


async def test_what_is_written_under_another_name_stays(redis: Redis, redis_server: LocalRedis) -> None:
    live = ["usage:run", "usage:2026-11-25-60d-0123abcd:17", "usage-progress:2026-11-25-60d-0123abcd:1000:0"]
    for key in live:
        await redis.set(key, "live")
    writer = UsageWriter(redis_server.url)
    with own_run(writer) as one, own_run(writer) as other:
        for prefix in (one, other):
            await redis.set(f"usage:{prefix}2026-11-25-60d-0123abcd:17", "bench")
            await redis.set(f"usage-progress:{prefix}2026-11-25-60d-0123abcd:1000:0", "bench")
        assert await redis.dbsize() == len(live) + 4
    assert sorted(await redis.keys()) == sorted(live)


async def test_a_run_that_fails_leaves_nothing(redis: Redis, redis_server: LocalRedis) -> None:
    def fail() -> None:
        writer = UsageWriter(redis_server.url)
        with own_run(writer) as prefix:
            writer.write(f"{prefix}run", 0, pl.DataFrame(ONE_USE))
            raise ChildProcessError

    with pytest.raises(ChildProcessError):
        fail()
    assert await redis.keys() == []


async def test_nothing_is_written_for_a_user_who_could_not_delete_it(redis: Redis, redis_server: LocalRedis) -> None:
    await redis.acl_setuser("narrow", enabled=True, nopass=True, keys="*", commands=["+@all", "-scan"])
    try:
        with (
            pytest.raises(NoPermissionError, match="scan"),
            own_run(UsageWriter(f"redis://narrow@127.0.0.1:{redis_server.port}")),
        ):
            pytest.fail("the benchmark began")
    finally:
        await redis.acl_deluser("narrow")


def test_a_cluster_is_cleaned_up_as_well(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, "--cluster-enabled", "yes", port=cluster_port()) as node:
        join([node])
        writer = UsageWriter(f"redis+cluster://127.0.0.1:{node.port}")
        with node.client as client:
            client.set("usage:run", "live")
            with own_run(writer) as prefix:
                users = [f"u{number}" for number in range(20)]
                writer.write(f"{prefix}run", 0, pl.DataFrame({"user_id": users, "product": "a", "uses": 1}))
                assert client.dbsize() == 2 + len({usage_key("run", user) for user in users})
            assert client.keys() == ["usage:run"]
