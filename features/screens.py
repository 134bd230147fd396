"""Recent screens in Redis: one sorted set a user, member `<event id>\\x1f<screen>`, score event time in milliseconds.

Of events with the same id and screen the newest time counts, and only the newest few members stay. So late, repeated
and out-of-order writes lead to the same set.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain

import msgspec
from redis.asyncio import Redis, RedisCluster

from features.schema import MAX_AHEAD, ScreenEvent

SEPARATOR = "\x1f"
USERS_PER_CALL = 25
"""Enough to make the overhead of a call small, few enough to block Redis for no more than 0.3 ms."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_JOIN = """
local screens, foreign = cmsgpack.unpack(ARGV[3]), {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' or kind == 'none' then
    redis.call('ZADD', key, 'GT', unpack(screens[i]))
    redis.call('ZREMRANGEBYRANK', key, 0, -1 - tonumber(ARGV[1]))
    redis.call('EXPIRE', key, ARGV[2])
  else
    foreign[#foreign + 1] = i
  end
end
return foreign
"""
"""KEYS: users' sets. ARGV: screens to keep, seconds to live, and MessagePack: [score, member, …] for each key.

Returns the indices, from 1, of the keys that have another type.
"""


def key(user: str) -> str:
    """The user's sorted set."""
    return f"screens:{user}"


async def write(redis: Redis, events: Iterable[ScreenEvent], keep: int, window_s: int) -> set[str]:
    """Add events to their users' sets, in one pipeline; a set lives at least as long as its newest screen is recent.

    A script for many users replaces three commands each and takes a seventh of the client's time. It is sent with EVAL:
    after a restart or failover a server would not know the hash of a loaded script. In a Redis Cluster, where all keys
    of a script must be in one slot, each user takes a call.

    Returns the users whose key has another type: it is left as it is, and their events were not stored.
    """
    users = list(_newest(events, keep).items())
    at_once = 1 if isinstance(redis, RedisCluster) else USERS_PER_CALL
    ttl_s = window_s + int(MAX_AHEAD.total_seconds())
    pipe = redis.pipeline(transaction=False)
    calls = [users[first : first + at_once] for first in range(0, len(users), at_once)]
    for some in calls:
        packed = msgspec.msgpack.encode([list(chain.from_iterable(screens)) for _, screens in some])
        pipe.eval(_JOIN, len(some), *(key(user) for user, _ in some), keep, ttl_s, packed)
    foreign = await pipe.execute()
    return {some[i - 1][0] for some, found in zip(calls, foreign, strict=True) for i in found}


def _newest(events: Iterable[ScreenEvent], limit: int) -> dict[str, list[tuple[int, str]]]:
    """The newest screens of each user, at most `limit`: score and member."""
    users: dict[str, dict[str, int]] = {}
    for event in events:
        screens = users.setdefault(event.user_id, {})
        member = f"{event.event_id.replace(SEPARATOR, '')}{SEPARATOR}{event.screen}"
        at_ms = (event.at - _EPOCH) // _MILLISECOND
        screens[member] = max(at_ms, screens.get(member, at_ms))
    return {user: sorted((at, member) for member, at in screens.items())[-limit:] for user, screens in users.items()}
