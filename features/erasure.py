"""Erasure of users from Redis: their screens, their usage under every run, and their entries on the streams.

A repeat does no harm: run an erasure again that was interrupted.
"""

from collections.abc import Collection

from redis.asyncio import Redis

from features import screens
from features.schema import FEEDBACK_STREAM, SCREEN_STREAM
from features.stream import pages
from features.usage import shard, shard_key

_KEYS_AT_ONCE = 1000


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
        if not values:
            return 0
        erased = 0
        async for page in pages(self._redis, stream):
            found = [entry_id for entry_id, fields in page if fields.get(field) in values]
            erased += len(found)
            if found and not self._dry_run:
                await self._redis.xdel(stream, *found)
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
        keys = {key async for key in self._redis.scan_iter(match=shard_key("*", "*"), count=_KEYS_AT_ONCE)}
        erased = 0
        for key in keys:
            for user in of_shard.get(key.rpartition(":")[2], ()):
                erased += await (self._redis.hexists(key, user) if self._dry_run else self._redis.hdel(key, user))
        return erased
