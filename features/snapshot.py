"""Features of many users in one round trip: by a script on one server, by a pipeline on a Redis Cluster.

The script returns one MessagePack value instead of two replies a user, which takes a quarter of the client's time. It
looks up the published usage run itself, so its keys cannot be declared, which a Cluster would require.
"""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from features import screens
from features.schema import UserFeatures
from features.usage import RUN_KEY, decode, shard, usage_key

Screens = list[str]
Snapshot = tuple[str | None, list[UserFeatures]]
"""The usage run, and the features of each user."""
_READ = f"""
local function known(reply, nothing)
  if type(reply) ~= 'table' or not reply.err then return reply or nothing end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nothing end
  error(reply.err)
end
local run = redis.call('GET', KEYS[1])
local usage = 'usage:' .. (run or '') .. ':'
local users = {{}}
for i = 2, #KEYS do
  local seen = known(redis.pcall('ZREVRANGEBYSCORE', KEYS[i], '+inf', ARGV[1], 'LIMIT', 0, ARGV[2]), {{}})
  local user = string.sub(KEYS[i], {len(screens.key("")) + 1})
  local shard = struct.unpack('<H', ARGV[3], 2 * i - 3)
  users[i - 1] = {{seen, run and known(redis.pcall('HGET', usage .. shard, user), '') or ''}}
end
return cmsgpack.pack({{run, users}})
"""
_Reply = tuple[str | bool | None, list[tuple[Screens, str]]]
_decoder = msgspec.msgpack.Decoder(_Reply)


async def snapshot(redis: Redis, users: Sequence[str], since_ms: int, most: int, run: str | None) -> Snapshot:
    """The newest screens since `since_ms`, at most `most`, oldest first, and the uses under the published run.

    A broken value affects its own user only: a key of another type counts as no screens or no uses, and of malformed
    uses counts what `decode` can read.

    Args:
        run: the run that is expected. If another is published, a Cluster takes a second round trip.

    Raises:
        redis.RedisError, OSError, TimeoutError: the store did not answer.
    """
    if not isinstance(redis, RedisCluster):
        keys = [RUN_KEY, *(screens.key(user) for user in users)]
        command = ("EVAL", _READ, len(keys), *keys, since_ms, most, struct.pack(f"<{len(users)}H", *map(shard, users)))
        packed = await redis.execute_command(*command, NEVER_DECODE=True)  # type: ignore[no-untyped-call]
        try:
            current, answers = _decoder.decode(packed)
        except (msgspec.ValidationError, UnicodeDecodeError):
            pass  # invalid UTF-8: the pipeline below replaces it
        else:
            return current or None, [_features(seen, uses) for seen, uses in answers]
    found, features = await by_pipeline(redis, users, since_ms, most, run)
    if found != run:
        _, features = await by_pipeline(redis, users, since_ms, most, found)
    return found, features


async def by_pipeline(redis: Redis, users: Sequence[str], since_ms: int, most: int, run: str | None) -> Snapshot:
    """The published run, and the features with the uses under `run`, by two commands a user."""
    pipe = redis.pipeline(transaction=False)
    pipe.get(RUN_KEY)
    for user in users:
        pipe.zrevrangebyscore(screens.key(user), "+inf", since_ms, start=0, num=most)
    if run is not None:
        for user in users:
            pipe.hget(usage_key(run, user), user)
    current, *answers = await pipe.execute(raise_on_error=False)
    if isinstance(current, Exception):
        raise current
    seen, uses = answers[: len(users)], answers[len(users) :] or [None] * len(users)
    pairs = zip(seen, uses, strict=True)
    return current, [_features(_known(newest, []), _known(value, None)) for newest, value in pairs]


def _known(reply: Any, nothing: Any) -> Any:
    """The reply to a command of a pipeline; `nothing` if the key has another type."""
    if not isinstance(reply, Exception):
        return reply
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return nothing
    raise reply


def _features(newest_first: Screens, uses: str | None) -> UserFeatures:
    seen = tuple(member.partition(screens.SEPARATOR)[2] for member in reversed(newest_first))
    return UserFeatures(seen, decode(uses))
