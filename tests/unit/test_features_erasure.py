"""Erasure: nothing of a user is left, and nothing of others is gone."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.__main__ import main
from features.parquet_columns import LogError
from features.schema import FEEDBACK_STREAM, SCREEN_STREAM, ScreenEvent, UserFeatures, rfc3339
from features.served_erasure import erase_served, requests_of
from features.served_schema import SERVED
from features.store import FeatureStore
from features.stream import publish

NOW = datetime.now(UTC)
DEAD = f"{SCREEN_STREAM}:dead"
NOTHING = {"events": 0, "dead_letters": 0, "feedback": 0, "screens": 0, "usage": 0, "served": 0}


def log_of(folder: Path, *files: list[str]) -> Path:
    """A served log with a file for each list of users; their requests are `<user>-<number of the file>`."""
    for number, users in enumerate(files):
        rows = [{"request_id": f"{user}-{number}", "user_id": user, "answered_at": NOW, "text": "hi"} for user in users]
        day = folder / f"day=2026-11-{number + 1:02}"
        day.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, SERVED), day / "served-1.parquet")
    return folder


def logged(folder: Path) -> dict[str, list[str]]:
    """The users in each file."""
    files = sorted(folder.rglob("*.parquet"))
    return {
        str(file.relative_to(folder)): pq.read_table(file, partitioning=None)["user_id"].to_pylist() for file in files
    }


async def world(redis: Redis) -> FeatureStore:
    """Ann and Ben have screens, usage under two runs, and entries on all streams."""
    store = FeatureStore(redis)
    for user in ("ann", "ben"):
        event = ScreenEvent("e", user, "card_limit", NOW)
        await store.write_screens([event])
        await publish(redis, event)
        await redis.xadd(DEAD, {"entry": "1-1", "reason": "at", "field:user_id": user})
        await redis.xadd(FEEDBACK_STREAM, {"request_id": f"{user}-0", "product": "loans", "at": rfc3339(NOW)})
    for run in ("2026-11-01-60d-00000000", "2026-11-02-60d-00000000"):
        await store.write_usage(run, {"ann": {"loans": 2}, "ben": {"loans": 3}})
        await store.publish_run(run)
    return store


async def content(redis: Redis, key: Any) -> Any:
    """A key and all that a client can read there."""
    kind = await redis.type(key)
    return key, await (redis.xrange(key) if kind == "stream" else redis.dump(key))


async def erase(capsys: pytest.CaptureFixture[str], redis_server: LocalRedis, *options: str) -> dict[str, Any]:
    """What the command says; it has an event loop of its own."""
    assert await asyncio.to_thread(main, ["erase", *options, "--redis-url", redis_server.url]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


async def test_all_of_a_user_goes_and_nothing_of_others(
    redis: Redis, redis_server: LocalRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, log = await world(redis), log_of(tmp_path, ["ann", "ben", "ann"], ["ben"], ["ann"])
    both = await store.read(["ben"])
    found = {"events": 1, "dead_letters": 1, "feedback": 1, "screens": 1, "usage": 2, "served": 3}
    options = ("ann", "--log", str(log))
    assert await erase(capsys, redis_server, *options, "--dry-run") == {"users": 1, "dry_run": True, **found}
    assert await erase(capsys, redis_server, *options) == {"users": 1, "dry_run": False, **found}
    assert await store.read(["ann", "ben"]) == [UserFeatures(), *both]
    assert logged(log) == {"day=2026-11-01/served-1.parquet": ["ben"], "day=2026-11-02/served-1.parquet": ["ben"]}
    assert {key for key in await redis.keys("*") if "ann" in str(await content(redis, key))} == set()
    assert [await redis.xlen(stream) for stream in (SCREEN_STREAM, DEAD, FEEDBACK_STREAM)] == [1, 1, 1]
    assert await erase(capsys, redis_server, *options) == {"users": 1, "dry_run": False, **NOTHING}


async def test_a_stream_of_many_pages_is_read_to_its_end(
    redis: Redis, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = redis.pipeline()
    for number in range(2500):
        pipe.xadd(SCREEN_STREAM, {"user_id": f"u{number % 3}"})
    await pipe.execute()
    told = await erase(capsys, redis_server, "u0", "u2")
    assert (told["events"], await redis.xlen(SCREEN_STREAM)) == (1667, 833)
    assert "served" not in told


def test_what_is_not_erased_from_a_file_stays_as_it_was(tmp_path: Path) -> None:
    log = log_of(tmp_path, ["ann", "ben"], ["ben"])
    file, other = (log / f"day=2026-11-{day}" / "served-1.parquet" for day in ("01", "02"))
    before, untouched = pq.read_table(file, partitioning=None), other.stat()
    found = requests_of(log, {"ann"})
    assert found == {file: ["ann-0"]}
    erase_served(found, {"ann"})
    assert pq.read_table(file, partitioning=None).equals(before.slice(1), check_metadata=True)
    assert (other.stat().st_ino, other.stat().st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)


def test_files_that_the_service_deletes_meanwhile_stay_away(tmp_path: Path) -> None:
    log = log_of(tmp_path, ["ann", "ben"], ["ann", "ben"])
    found = requests_of(log, {"ann"})
    next(iter(found)).unlink()
    erase_served(found, {"ann"})
    assert logged(log) == {"day=2026-11-02/served-1.parquet": ["ben"]}


def test_a_file_that_cannot_be_read_is_named_before_anything_is_erased(
    tmp_path: Path, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path, ["ann"], ["ann"])
    damaged = log / "day=2026-11-02" / "served-1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(LogError, match=f"{damaged}: not a readable Parquet file"):
        requests_of(log, {"ann"})
    assert main(["erase", "ann", "--log", str(log), "--redis-url", redis_server.url]) == 2
    assert str(damaged) in capsys.readouterr().err
    assert len(logged(log / "day=2026-11-01")) == 1
