"""A benchmark that is told to end, or is killed, leaves no process behind; told to end, it leaves no key either."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from local_redis import LocalRedis
from redis import Redis

ROOT = Path(__file__).resolve().parents[2]
Running = tuple["subprocess.Popen[str]", list[psutil.Process]]
pytestmark = pytest.mark.usefixtures("redis")


@pytest.fixture
def client(redis_server: LocalRedis) -> Iterator[Redis]:
    with Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def running(client: Redis, redis_server: LocalRedis) -> Iterator[Running]:
    """`features bench freshness` whose ingester has stored something, and the processes that it has started."""
    command = [sys.executable, "-m", "features", "bench", "freshness", "--rate", "50", "--seconds", "600"]
    command += ["--redis-url", redis_server.url]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None and not client.keys("screens:bench-*"):
                time.sleep(0.01)
            yield process, psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_removes_what_it_wrote(client: Redis, running: Running, number: signal.Signals) -> None:
    process, started = running
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "error: interrupted")
    assert psutil.wait_procs(started, timeout=120)[1] == []
    assert client.keys("*bench-*") == []


def test_killed_it_leaves_no_ingester(running: Running) -> None:
    process, started = running
    process.kill()
    assert started
    assert psutil.wait_procs(started, timeout=120)[1] == []
