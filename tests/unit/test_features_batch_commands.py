"""`materialize` on the command line, as far as it goes without Ray."""

from pathlib import Path

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.__main__ import main
from features.partials import Partials
from features.store import RUN_KEY
from tests.unit.event_logs import DAY, write

NEWER = "2026-10-03-60d-0123abcd"


async def test_an_older_run_is_refused_before_the_work(
    tmp_path: Path, redis: Redis, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "usage", DAY, [("u1", "a")])
    await redis.set(RUN_KEY, NEWER)
    arguments = ["--events", str(tmp_path / "usage"), "--as-of", "2026-10-02", "--redis-url", redis_server.url]
    assert main(["materialize", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: readers see {NEWER}, ")
    assert output.err.count("\n") == 1
    assert await redis.keys("*") == [RUN_KEY]
    assert not Partials(tmp_path / "usage.partials").folder.exists()
