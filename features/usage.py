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
"""How long values live where nobody says otherwise, in seconds."""
SHARDS = 4096
"""Hashes of a run, among which users are spread; 24 users each for 100,000, and 24,000 for 100 million."""
WRITE = """
local written = redis.pcall('HSET', KEYS[1], unpack(ARGV, 2))
if type(written) == 'table' then return {err = string.match(written.err, '^@.-: %-(.*)') or written.err} end
return redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) and redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""Fields and values, at most some thousand, into the hash at a key, which lives for the seconds that come before them
or longer. Before version 7, Redis hides the kind of error behind the place in the script.
"""
MAX_USES = 10**9 - 1
"""The largest use that counts: one a second for sixty days has seven digits. What serves and keeps it holds no more."""
_RUN = re.compile(r"(\d{4}-\d{2}-\d{2})-(\d+)d-[0-9a-f]{8}")
_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=MAX_USES)]])


def shard(user: str) -> int:
    """Which of a run's hashes a user is in; `features.shards` has it for many users."""
    return zlib.crc32(user.encode()) % SHARDS


def usage_key(run: str, user: str) -> str:
    """The hash that has, as the field of that name, a user's uses by product under a run."""
    return shard_key(run, shard(user))


def shard_key(run: str, number: int | str) -> str:
    """Where a run has the users of a shard."""
    return f"usage:{run}:{number}"


def run_window(run: str) -> tuple[date, int] | None:
    """The day before which the window of a run ends, and its days; None for runs that `materialize` did not make."""
    match = _RUN.fullmatch(run)
    try:
        return (date.fromisoformat(match[1]), int(match[2])) if match else None
    except ValueError:
        return None


def encode(uses: Mapping[str, int]) -> bytes:
    """Uses by product as a value in Redis."""
    return msgspec.json.encode(uses)


def decode(value: str | None) -> dict[str, int]:
    """What counts of a value in Redis: the uses of an object, up to `MAX_USES`; nothing where there is no object."""
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
