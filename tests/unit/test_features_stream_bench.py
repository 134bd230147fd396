"""The benchmarks, tiny: what they report, and that they leave a live server as it was."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from features import stream_bench
from features.bench_setup import answer, process
from features.store import FeatureStore
from features.usage import RUN_KEY
from tests.unit.redis_process import RedisProcess, cluster_port, join


@pytest.fixture(params=[None, "monday"])
async def url(request: pytest.FixtureRequest, redis: Redis, redis_server: LocalRedis) -> AsyncIterator[str]:
    """A server in use: with a user of its own, before and after its first usage run."""
    await redis.zadd("screens:ana", {"e1\x1fhome": 1})
    if request.param is not None:
        await FeatureStore(redis).write_usage(request.param, {"ana": {"loans": 1}})
        await FeatureStore(redis).publish_run(request.param)
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    yield redis_server.url
    assert {key: await redis.dump(key) for key in await redis.keys("*")} == before


def checked(report: dict[str, Any], *positive: str) -> dict[str, Any]:
    assert json.loads(json.dumps(report)) == report
    assert {"cpu", "cores", "load_average", "redis", "redis_py", "python"} <= set(report["machine"])
    assert {name: report[name] for name in positive if not report[name] > 0} == {}
    return report


async def test_throughput(url: str) -> None:
    report = checked(
        await stream_bench.throughput(url, events=700, users=50, batch=100, rounds=1),
        "events_per_second",
        "events_per_cpu_second",
    )
    assert len(report["rounds"]) == 1


async def test_freshness(url: str) -> None:
    report = checked(await stream_bench.freshness(url, rate=200, seconds=0.2, users=20), "p50_ms", "ingester_cpu_share")
    assert report["watched"] == 20
    assert report["p50_ms"] <= report["p99_ms"] <= report["max_ms"]


async def test_freshness_of_a_single_event(url: str) -> None:
    report = checked(await stream_bench.freshness(url, rate=1, seconds=1), "p50_ms")
    assert report["watched"] == 1
    assert report["p50_ms"] == report["p99_ms"] == report["max_ms"]


async def test_reads(url: str) -> None:
    report = checked(await stream_bench.reads(url, users=5, rounds=20), "p50_ms", "p99_ms")
    assert report["round_trips"] == 1


async def test_a_run_that_is_published_meanwhile_stays(redis: Redis) -> None:
    async with stream_bench.visible_run(redis, "bench-1") as run:
        assert await redis.get(RUN_KEY) == run == "bench-1"
        await FeatureStore(redis).publish_run("monday")
    assert await redis.get(RUN_KEY) == "monday"


async def test_a_run_of_another_is_read_and_stays(redis: Redis) -> None:
    await redis.set(RUN_KEY, "monday")
    async with stream_bench.visible_run(redis, "bench-1") as run:
        assert run == "monday"
    assert (await redis.get(RUN_KEY), await redis.ttl(RUN_KEY)) == ("monday", -1)


@pytest.mark.parametrize("needed_in_the_end", ["scan", "info"])
async def test_nothing_is_written_for_a_user_who_could_not_end_it(
    needed_in_the_end: str, redis: Redis, redis_server: LocalRedis
) -> None:
    await redis.acl_setuser("narrow", enabled=True, nopass=True, keys="*", commands=["+@all", f"-{needed_in_the_end}"])
    try:
        with pytest.raises(NoPermissionError, match=needed_in_the_end):
            await stream_bench.reads(f"redis://narrow@127.0.0.1:{redis_server.port}", users=5, rounds=20)
    finally:
        await redis.acl_deluser("narrow")
    assert await redis.keys() == []


async def test_a_cluster_is_measured_as_well(tmp_path: Any) -> None:
    with RedisProcess(tmp_path, "--cluster-enabled", "yes", port=cluster_port()) as node:
        join([node])
        url = f"redis+cluster://127.0.0.1:{node.port}"
        assert checked(await stream_bench.reads(url, users=5, rounds=20), "p50_ms")["round_trips"] is None
        checked(await stream_bench.throughput(url, events=100, users=50, rounds=1), "events_per_second")
        with node.client as client:
            assert client.dbsize() == 0


async def _say(pipe: Any, words: str) -> None:
    pipe.send((words, os.getpid()))


async def _die(pipe: Any) -> None:
    os._exit(3)


async def _hang(pipe: Any) -> None:
    await asyncio.Event().wait()


async def test_a_process_runs_a_coroutine_and_ends() -> None:
    with process(_say, "hello") as (pid, pipe):
        assert await answer(pipe, 120) == ("hello", pid)
        with pytest.raises(ChildProcessError, match="has ended"):
            await answer(pipe, 120)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_process_that_dies_or_hangs_is_an_error() -> None:
    with process(_die) as (_, pipe), pytest.raises(ChildProcessError, match="has ended"):
        await answer(pipe, 120)
    with process(_hang) as (_, pipe), pytest.raises(ChildProcessError, match="said nothing"):
        await answer(pipe, 0.01)
