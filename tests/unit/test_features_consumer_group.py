"""What is left of a stream and what may go, on a real Redis."""

import asyncio
from typing import Any

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.consumer_group import Backlog, ConsumerGroup
from features.store import connect

STREAM = "events:test"


class Redis7(Redis):
    """Says that each group has yet to receive two entries, in the way of Redis 7."""

    async def xinfo_groups(self, name: Any) -> Any:
        rows: Any = await super().xinfo_groups(name)
        return [row | {"lag": 2} for row in rows]


def member(redis: Redis, consumer: str = "alive", group: str = "screens") -> ConsumerGroup:
    return ConsumerGroup(redis, STREAM, group, consumer)


async def append(redis: Redis, count: int, first: int = 1) -> list[str]:
    """Entries that arrived in the milliseconds `first`, `first` + 1, …"""
    return [str(await redis.xadd(STREAM, {"n": n}, id=f"{n}-0")) for n in range(first, first + count)]


async def owned(redis: Redis, consumer: str) -> int:
    return len(await redis.xpending_range(STREAM, "screens", "-", "+", 100, consumername=consumer))


async def consumers(redis: Redis) -> set[str]:
    return {row["name"] for row in await redis.xinfo_consumers(STREAM, "screens")}


@pytest.mark.parametrize("protocol", [2, 3])
async def test_entries_are_read_once_and_until_acknowledged(redis_server: LocalRedis, protocol: int) -> None:
    redis = connect(f"{redis_server.url}?protocol={protocol}", 60.0)
    await redis.flushall()
    group = member(redis)
    assert await group.read_new(10, 1) == []
    ids = await append(redis, 3)
    entries = await group.read_new(2, 1)
    assert entries == [(ids[0], {"n": "1"}), (ids[1], {"n": "2"})]
    assert await group.read_new(2, 1) == [(ids[2], {"n": "3"})]
    await group.acknowledge([ids[1]])
    assert [entry_id for entry_id, _ in await group.read_unacknowledged(10)] == [ids[0], ids[2]]
    assert await member(redis, "other").read_unacknowledged(10) == []
    assert (await group.backlog()).oldest_ms == 1
    await redis.aclose()


async def test_entries_left_for_long_change_hands_with_those_that_were_deleted(redis: Redis) -> None:
    dead, alive = member(redis, "dead"), member(redis)
    await dead.create()
    ids = await append(redis, 5)
    await dead.read_new(4, 1)
    await redis.xdel(STREAM, ids[1])
    assert not await alive.take_over(600_000, 10)
    async with asyncio.timeout(60):
        while await owned(redis, "dead"):
            await alive.take_over(20, 10)
    taken = dict(await alive.read_unacknowledged(10))
    assert {entry_id: fields for entry_id, fields in taken.items() if fields} == {
        ids[0]: {"n": "1"},
        ids[2]: {"n": "3"},
        ids[3]: {"n": "4"},
    }
    await alive.acknowledge(taken)
    assert await alive.read_unacknowledged(10) == await dead.read_unacknowledged(10) == []
    assert (await redis.xpending(STREAM, "screens"))["pending"] == 0


async def test_backlog_counts_what_is_not_acknowledged(redis: Redis) -> None:
    group = member(redis)
    await group.create()
    assert await group.backlog() == Backlog(0, None)
    ids = await append(redis, 250)
    assert await group.backlog() == Backlog(250, 1)
    await group.read_new(200, 1)
    assert await group.backlog() == Backlog(250, 1)
    await group.acknowledge(ids[:150])
    await group.trim()
    assert await group.backlog() == Backlog(100, 151)
    await group.acknowledge(ids[150:200])
    await group.trim()
    assert await group.backlog() == Backlog(50, 201)
    await group.acknowledge([entry_id for entry_id, _ in await group.read_new(500, 1)])
    assert await group.backlog() == Backlog(0, None)


async def test_where_redis_knows_the_lag_what_was_acknowledged_is_no_backlog_before_it_is_trimmed(
    redis: Redis, redis_server: LocalRedis
) -> None:
    newer = Redis7.from_url(redis_server.url, decode_responses=True)
    group = member(newer)
    await group.create()
    ids = await append(redis, 5)
    await group.read_new(3, 1)
    await group.acknowledge(ids[:1])
    assert await group.backlog() == Backlog(4, 2)
    await newer.aclose()


async def test_an_entry_after_a_quiet_night_is_no_backlog_of_a_night(redis: Redis) -> None:
    group = member(redis)
    await group.create()
    await append(redis, 1)
    await group.acknowledge([entry_id for entry_id, _ in await group.read_new(1, 1)])
    await group.trim()
    await append(redis, 1, first=36_000_000)
    assert await group.backlog() == Backlog(1, 36_000_000)


async def test_what_every_group_has_acknowledged_is_trimmed(redis: Redis) -> None:
    groups = [member(redis, group=name) for name in ("screens", "audit")]
    for group in groups:
        await group.create()
    ids = await append(redis, 350)
    await groups[0].read_new(350, 1)
    await groups[0].acknowledge(ids)
    await groups[0].trim()
    assert await redis.xlen(STREAM) == 350
    assert [await group.backlog() for group in groups] == [Backlog(0, None), Backlog(350, 1)]
    await groups[1].read_new(300, 1)
    await groups[1].acknowledge([entry_id for entry_id in ids[:300] if entry_id != ids[9]])
    await groups[0].trim()
    assert await redis.xlen(STREAM) == 341
    await groups[1].acknowledge([ids[9]])
    await groups[0].trim()
    assert await redis.xrange(STREAM, count=1) == [(ids[300], {"n": "301"})]
    await groups[1].read_new(50, 1)
    await groups[1].acknowledge(ids)
    await groups[0].trim()
    assert await redis.xlen(STREAM) == 0


async def test_the_silent_are_forgotten_unless_they_own_entries(redis: Redis) -> None:
    for consumer in ("gone", "owner", "alive"):
        await member(redis, consumer).create()
        await append(redis, 1, first=1 + len(await consumers(redis)))
        await member(redis, consumer).read_new(1, 1)
    await member(redis, "gone").acknowledge(["1-0"])
    alive = member(redis)
    await alive.forget_consumers(600_000)
    assert await consumers(redis) == {"gone", "owner", "alive"}
    async with asyncio.timeout(60):
        while await consumers(redis) != {"owner", "alive"}:
            await alive.forget_consumers(1)
    letters: Any = await member(redis, "owner").read_unacknowledged(10)
    assert [entry_id for entry_id, _ in letters] == ["2-0"]


async def test_a_group_that_somebody_destroyed_has_no_backlog(redis: Redis) -> None:
    group = member(redis)
    await group.create()
    await append(redis, 3)
    await redis.xgroup_destroy(STREAM, "screens")
    await group.trim()
    assert await group.backlog() == Backlog(0, None)
    assert await redis.xlen(STREAM) == 3


@pytest.mark.parametrize("milliseconds", [5, 2**64 - 1])
async def test_an_entry_with_the_last_number_of_its_millisecond_is_like_others(redis: Redis, milliseconds: int) -> None:
    group = member(redis)
    await group.create()
    await redis.xadd(STREAM, {"n": 1}, id=f"{milliseconds}-{2**64 - 1}")
    await group.acknowledge([entry_id for entry_id, _ in await group.read_new(10, 1)])
    await group.trim()
    if milliseconds < 2**64 - 1:
        assert await redis.xlen(STREAM) == 0
        assert await group.backlog() == Backlog(0, None)
        await append(redis, 1, first=milliseconds + 1)
        assert await group.backlog() == Backlog(1, milliseconds + 1)


async def test_what_is_needed_is_found_by_number_and_not_by_text(redis: Redis) -> None:
    ahead, behind = member(redis, group="ahead"), member(redis, group="behind")
    for group in (ahead, behind):
        await group.create()
    ids = await append(redis, 2, first=9)
    given = [await group.read_new(10, 1) for group in (ahead, behind)]
    await ahead.acknowledge(ids)
    await ahead.trim()
    assert await behind.read_unacknowledged(10) == given[1] == [("9-0", {"n": "9"}), ("10-0", {"n": "10"})]
