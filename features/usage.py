"""Product usage in Redis: a hash for each user under a run, product to uses in the last 60 days.

A value and its time to live are written by one script. Were they two commands, a writer or a server that dies between
them would leave a value that never expires, under a run that perhaps nobody writes again.
"""

from collections.abc import Mapping

RUN_KEY = "usage:run"
"""Holds the run that readers see."""
TTL_S = 3 * 86400
"""How long values live where nobody says otherwise, in seconds."""
WRITE = """
local at = 2
for _, key in ipairs(KEYS) do
  local last = at + ARGV[at]
  for first = at + 1, last, 1000 do
    redis.call('HSET', key, unpack(ARGV, first, math.min(first + 999, last)))
  end
  redis.call('EXPIRE', key, ARGV[1])
  at = last + 1
end
"""
"""KEYS: users' hashes. ARGV: seconds to live; then for each key how many arguments follow, and product, uses, …

Lua's `unpack` takes some thousands at once.
"""


def usage_key(run: str, user: str) -> str:
    """The hash of a user's uses by product under a run."""
    return f"usage:{run}:{user}"


def arguments(key: str, uses: Mapping[str, int], ttl_s: int) -> list[str | int]:
    """What `WRITE` takes for one user: the key and ARGV. There must be uses."""
    pairs = [value for pair in uses.items() for value in pair]
    return [key, ttl_s, len(pairs), *pairs]
