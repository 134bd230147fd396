"""What readers see while the batch pipeline runs, and when Redis or a worker dies on the way."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from features.batch import Window
from features.parquet_columns import LogError
from features.ray_session import map_items
from features.usage import RUN_KEY
from features.usage_writer import LostUsers, UsageWriter
from tests.serve.batch.relay import Relay
from tests.serve.batch.usage import AS_OF, DAYS, WINDOW, run, seen
from tests.serve.polling import until
from tests.unit.event_logs import write
from tests.unit.redis_process import RedisProcess
from tests.unit.usage_values import stored

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


class TestMidway:
    """A run in which Redis goes away, a worker dies, another run takes place, or readers look on."""

    @pytest.fixture
    def busy(self, tmp_path: Path, writer: UsageWriter) -> Path:
        """A log with users enough to be cut at any place; readers see the run of the day before."""
        for before in range(1, 5):
            uses = [(f"u{number}", f"p{before}") for number in range(0, 2_000, before)]
            write(tmp_path / "usage", AS_OF - timedelta(before), uses)
        run(tmp_path / "usage", writer, Window(WINDOW.last, DAYS))
        return tmp_path / "usage"

    @pytest.mark.parametrize("limit", [1_500, 20_000, 150_000])
    def test_redis_goes_away(
        self, busy: Path, writer: UsageWriter, server: RedisProcess, client: Redis, limit: int
    ) -> None:
        before = client.get(RUN_KEY)
        with Relay(server.port, limit, "break") as relay:
            with pytest.raises(RedisError):
                run(busy, UsageWriter(relay.url))
            assert relay.reached.is_set()
        assert client.get(RUN_KEY) == before
        assert seen(writer.redis_url, "u0", "u1") == [{"p2": 1, "p3": 1, "p4": 1}, {}]
        self._check_whole(run(busy, writer), client)

    def test_redis_starts_again_with_nothing(
        self, busy: Path, writer: UsageWriter, server: RedisProcess, client: Redis
    ) -> None:
        """Between two buckets, as a server without persistence: no connection breaks."""
        with Relay(server.port, 100_000, "hold") as relay, ThreadPoolExecutor(1) as thread:
            running = thread.submit(run, busy, UsageWriter(relay.url))
            assert relay.reached.wait(300)
            client.flushall()
            relay.release()
            with pytest.raises(LostUsers, match=r"Redis has lost \d+ of 2000 users"):
                running.result(300)
        assert client.get(RUN_KEY) is None
        self._check_whole(run(busy, writer), client)

    def test_a_worker_dies(self, busy: Path, server: RedisProcess, client: Redis) -> None:
        with Relay(server.port, 100_000, "hold") as relay, ThreadPoolExecutor(1) as thread:
            running = thread.submit(run, busy, UsageWriter(relay.url))
            assert relay.reached.wait(300)
            workers = [child for child in psutil.Process().children(recursive=True) if _works(child)]
            assert workers
            for worker in workers:
                worker.kill()
            relay.release()
            self._check_whole(running.result(120), client)

    def test_readers_see_the_old_run_and_then_the_new_one(
        self, busy: Path, writer: UsageWriter, server: RedisProcess, client: Redis
    ) -> None:
        """Users of all buckets, read together, while the run stands still and when it goes on."""
        users = [f"u{number}" for number in range(0, 2_000, 50)]
        old, looks, done = seen(writer.redis_url, *users), [], threading.Event()

        def look() -> None:
            while not done.is_set():
                looks.append(seen(writer.redis_url, *users))

        with Relay(server.port, 100_000, "hold") as relay, ThreadPoolExecutor(2) as threads:
            running, looking = threads.submit(run, busy, UsageWriter(relay.url)), threads.submit(look)
            assert relay.reached.wait(300)
            until(lambda: len(looks), lambda number: number > 3)
            assert looks[-1] == old
            relay.release()
            summary = running.result(300)
            new = seen(writer.redis_url, *users)
            done.set()
            looking.result(300)
        self._check_whole(summary, client)
        changed = [look == new for look in looks]
        assert changed == sorted(changed)
        assert all(look in (old, new) for look in looks)
        assert old != new

    def test_two_runs_of_the_same_day_at_once(self, busy: Path, writer: UsageWriter, client: Redis) -> None:
        with ThreadPoolExecutor(2) as threads:
            summaries = list(threads.map(lambda _: run(busy, writer), range(2)))
        assert summaries[0]["run"] == summaries[1]["run"]
        for summary in summaries:
            self._check_whole(summary, client)

    @staticmethod
    def _check_whole(summary: dict[str, Any], client: Redis) -> None:
        assert client.get(RUN_KEY) == summary["run"]
        expected = {
            f"u{number}": {f"p{before}": 1 for before in range(1, 4) if number % before == 0} for number in range(2_000)
        }
        assert stored(client, summary["run"]) == expected
        assert summary["users"] == len(expected)


def test_what_a_worker_raises_is_raised_here() -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise LogError("the third")
        return item

    with pytest.raises(LogError, match="the third"):
        list(map_items(fail, range(5), "items", progress=False))
    assert sorted(map_items(fail, range(3), "items", progress=False)) == [0, 1, 2]
    assert list(map_items(fail, [], "items", progress=False)) == []


class Unimportable:
    """A kernel of a package that no worker has."""

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, ("a_package_of_the_driver_alone",)


def test_code_that_workers_lack_is_named() -> None:
    reason = "^Ray's workers failed at these items: .*No module named 'a_package_of_the_driver_alone'$"
    with pytest.raises(ChildProcessError, match=reason):
        list(map_items(Unimportable(), range(1), "items", progress=False))


def test_workers_that_always_die_are_one_error() -> None:
    with pytest.raises(ChildProcessError, match="Ray's workers failed at these items: "):
        list(map_items(lambda item: os._exit(1), range(1), "items", progress=False))


def _works(process: psutil.Process) -> bool:
    try:
        return "ray::Map" in " ".join(process.cmdline())
    except psutil.Error:
        return False
