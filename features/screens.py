"""Recent screens in Redis: one sorted set a user, member `<event id>\\x1f<screen>`, score event time in milliseconds.

The sets are joined, not appended to: of events with the same id and screen the newest counts, and only the newest few
stay. Late, repeated and out-of-order writes therefore end in the same set.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain

from redis.asyncio import Redis, RedisCluster

from features.schema import MAX_AHEAD, ScreenEvent

SEPARATOR = "\x1f"
USERS_PER_CALL = 25
"""Enough that a call's own cost hardly counts, few enough that it holds Redis up for about 0.2 ms."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_JOIN = """
local keep, ttl, i = tonumber(ARGV[1]), ARGV[2], 3
for _, key in ipairs(KEYS) do
  local last = i + 2 * tonumber(ARGV[i])
  redis.call('ZADD', key, 'GT', unpack(ARGV, i + 1, last))
  redis.call('ZREMRANGEBYRANK', key, 0, -1 - keep)
  redis.call('EXPIRE', key, ttl)
  i = last + 1
end
"""
"""KEYS: users' sets. ARGV: screens to keep, seconds to live, then for each key n and n times score, member."""


def key(user: str) -> str:
    """The user's sorted set."""
    return f"screens:{user}"


async def write(redis: Redis, events: Iterable[ScreenEvent], keep: int, window_s: int) -> None:
    """Join events into their users' sets, in one pipeline; a user's set lives while one of its screens is recent.

    A script does for many users what takes three commands each: a tenth of the client's time. Scripts travel as EVAL,
    since a server that has forgotten a loaded one (restart, failover) would refuse its hash. In a Redis Cluster, where
    the keys of a call must share a slot, each user is a call.
    """
    users = list(_newest(events, keep).items())
    at_once = 1 if isinstance(redis, RedisCluster) else USERS_PER_CALL
    ttl_s = window_s + int(MAX_AHEAD.total_seconds())
    pipe = redis.pipeline(transaction=False)
    for first in range(0, len(users), at_once):
        some = users[first : first + at_once]
        arguments: list[str | int] = [keep, ttl_s]
        for _, screens in some:
            arguments.append(len(screens))
            arguments += chain.from_iterable(screens)
        pipe.eval(_JOIN, len(some), *(key(user) for user, _ in some), *arguments)
    await pipe.execute()


def _newest(events: Iterable[ScreenEvent], limit: int) -> dict[str, list[tuple[int, str]]]:
    """The newest screens of each user, at most `limit`: score and member."""
    users: dict[str, dict[str, int]] = {}
    for event in events:
        screens = users.setdefault(event.user_id, {})
        member = f"{event.event_id.replace(SEPARATOR, '')}{SEPARATOR}{event.screen}"
        at_ms = (event.at - _EPOCH) // _MILLISECOND
        screens[member] = max(at_ms, screens.get(member, at_ms))
    return {user: sorted((at, member) for member, at in screens.items())[-limit:] for user, screens in users.items()}
