"""Product usage in Redis: a JSON object for each user under a run, product to uses in the last 60 days.

The users of a run are fields of `SHARDS` hashes: a key of its own for each costs Redis half as much memory again, and
three times the time to write. Fields and their hash's time to live are written in one step, so a writer that dies
leaves none that never expires, and reading one parses one reply, however many products it has.
"""

import re
import zlib
from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec

RUN_KEY = "usage:run"
"""Holds the run that readers see."""
TTL_S = 3 * 86400
"""The default life of values, in seconds."""
SHARDS = 4096
"""Hashes of a run, among which users are spread; 24 users each for 100,000, and 24,000 for 100 million."""
WRITE = """
local written = redis.pcall('HSET', KEYS[1], unpack(ARGV, 2))
if type(written) == 'table' then return {err = string.match(written.err, '^@.-: %-(.*)') or written.err} end
return redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) and redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""KEYS: a hash. ARGV: its minimum seconds to live, then fields and values, at most some thousand.

Before version 7, Redis puts the place in the script before an error's type; that is removed.
"""
MAX_USES = 10**9 - 1
"""Larger counts are ignored: one use a second for sixty days has seven digits."""
_RUN = re.compile(r"(\d{4}-\d{2}-\d{2})-(\d+)d-[0-9a-f]{8}")
_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=MAX_USES)]])


def shard(user: str) -> int:
    """The number of the hash that a user is in; `features.shards` computes it for many users at once."""
    return zlib.crc32(user.encode()) % SHARDS


def usage_key(run: str, user: str) -> str:
    """The key of the hash with a user's uses under a run; the field is the user's name."""
    return shard_key(run, shard(user))


def shard_key(run: str, number: int | str) -> str:
    """The key of a run's hash for a shard."""
    return f"usage:{run}:{number}"


def run_window(run: str) -> tuple[date, int] | None:
    """The first day after a run's window, and the window's days; None for runs that `materialize` did not make."""
    match = _RUN.fullmatch(run)
    try:
        return (date.fromisoformat(match[1]), int(match[2])) if match else None
    except ValueError:
        return None


def encode(uses: Mapping[str, int]) -> bytes:
    """Uses by product as a value in Redis."""
    return msgspec.json.encode(uses)


def decode(value: str | None) -> dict[str, int]:
    """Uses by product from a value in Redis; ignores whatever is not a count from 0 to `MAX_USES`."""
    if not value:
        return {}
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return {product: n for product, n in _object(value).items() if type(n) is int and 0 <= n <= MAX_USES}


def _object(value: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(value, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
