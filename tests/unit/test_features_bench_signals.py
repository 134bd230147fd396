"""A benchmark that is told to end, or is killed, leaves no process behind; told to end, it leaves no key either."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

ROOT = Path(__file__).resolve().parents[2]
Running = tuple["subprocess.Popen[str]", list[psutil.Process]]


@pytest.fixture
async def running(redis: Redis, redis_server: LocalRedis) -> AsyncIterator[Running]:
    """`features bench freshness` whose ingester has stored something, and the processes that it has started."""
    command = [sys.executable, "-m", "features", "bench", "freshness", "--rate", "50", "--seconds", "600"]
    command += ["--redis-url", redis_server.url]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None and not await redis.keys("screens:bench-*"):
                await asyncio.sleep(0.01)
            yield process, psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_end_it_removes_what_it_wrote(redis: Redis, running: Running, number: signal.Signals) -> None:
    process, started = running
    process.send_signal(number)
    _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "error: interrupted")
    assert psutil.wait_procs(started, timeout=20)[1] == []
    assert await redis.keys("*bench-*") == []


async def test_killed_it_leaves_no_ingester(running: Running) -> None:
    process, started = running
    process.kill()
    assert started
    assert psutil.wait_procs(started, timeout=20)[1] == []
