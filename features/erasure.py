"""Erasure of users from Redis: their screens, their usage under every run, and their entries on the streams.

A repeat does no harm: run an erasure again that was interrupted.
"""

from collections.abc import Collection
from typing import Any

from redis.asyncio import Redis

from features import screens
from features.schema import FEEDBACK_STREAM, SCREEN_STREAM
from features.usage import shard, shard_key

_PAGE = 1000


async def erase_online(
    redis: Redis, users: Collection[str], requests: Collection[str] = (), dry_run: bool = False
) -> dict[str, int]:
    """Delete what Redis holds of users.

    Args:
        requests: ids of their requests, whose feedback is deleted, too.
        dry_run: only count.

    Returns:
        How much there was: entries of the streams (`events`, `dead_letters`, `feedback`), sets of `screens`, and values
        of `usage`, one for each user and run.

    Raises:
        redis.RedisError, OSError, TimeoutError: Redis did not answer, or refused a command; run it again.
    """
    erasing = _Erasing(redis, dry_run)
    return {  # the streams first: what an ingester still finds there, it would store again
        "events": await erasing.entries(SCREEN_STREAM, "user_id", users),
        "dead_letters": await erasing.entries(f"{SCREEN_STREAM}:dead", "field:user_id", users),
        "feedback": await erasing.entries(FEEDBACK_STREAM, "request_id", requests),
        "screens": await erasing.screens(users),
        "usage": await erasing.usage(users),
    }


class _Erasing:
    def __init__(self, redis: Redis, dry_run: bool) -> None:
        self._redis, self._dry_run = redis, dry_run

    async def entries(self, stream: str, field: str, values: Collection[str]) -> int:
        erased, after = 0, "-"
        while values and (page := await self._redis.xrange(stream, after, "+", count=_PAGE)):
            found: list[Any] = [entry_id for entry_id, fields in page if fields and fields.get(field) in values]
            erased += len(found)
            if found and not self._dry_run:
                await self._redis.xdel(stream, *found)
            after = "(" + str(page[-1][0])
        return erased

    async def screens(self, users: Collection[str]) -> int:
        erased = 0
        for key in map(screens.key, users):
            erased += await (self._redis.exists(key) if self._dry_run else self._redis.unlink(key))
        return erased

    async def usage(self, users: Collection[str]) -> int:
        """All runs, since older ones stay until they expire."""
        of_shard: dict[str, list[str]] = {}
        for user in users:
            of_shard.setdefault(str(shard(user)), []).append(user)
        keys = [key async for key in self._redis.scan_iter(match=shard_key("*", "*"), count=_PAGE)]
        erased = 0
        for key in set(keys):
            for user in of_shard.get(key.rpartition(":")[2], ()):
                erased += await (self._redis.hexists(key, user) if self._dry_run else self._redis.hdel(key, user))
        return erased
