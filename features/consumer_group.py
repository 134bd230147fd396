"""One member of a consumer group: reads, acknowledges, takes over, trims, and knows what is left.

`Group` is what `ScreenIngester` needs of its source, `ConsumerGroup` that of a Redis stream.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

_GREATEST = 2**64 - 1
"""Of either part of an id."""
Entry = tuple[str, dict[str, str]]
_FORGET = """
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
"""
"""KEYS: the stream. ARGV: the group, milliseconds. As two commands, an entry delivered in between would be lost."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a group has not acknowledged yet."""

    entries: int
    oldest_ms: int | None
    """When the oldest of them was appended, in milliseconds since 1970; nothing if there is none."""


class Group(Protocol):
    """A consumer group as seen by one of its consumers; entries have ids that their group knows them by.

    Any method may raise redis.RedisError, OSError or TimeoutError, and is then called again later.
    """

    async def create(self) -> None:
        """Make the group, reading from the beginning, unless it is there."""

    async def read_new(self, count: int, block_ms: int) -> list[Entry]:
        """At most `count` entries that no consumer has been given yet, waited for `block_ms` milliseconds at most."""

    async def read_unacknowledged(self, count: int) -> list[Entry]:
        """The oldest entries that this consumer has been given and not acknowledged; lost ones have no fields."""

    async def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Say that entries need not be read again."""

    async def take_over(self, idle_ms: int, count: int) -> bool:
        """Make entries this consumer's that another has left for so long; False where somebody else sees to that."""

    async def set_aside(self, poison: Sequence[tuple[Entry, str]], keep: int) -> None:
        """Keep entries that are no events, with the reasons; about `keep` of them in all."""

    async def trim(self) -> None:
        """Remove what nobody needs any more; nothing where the log does so itself."""

    async def backlog(self) -> Backlog:
        """What the group has not acknowledged yet."""

    async def forget_consumers(self, idle_ms: int) -> None:
        """Forget consumers without entries that have been silent for so long; nothing where there are no names."""


class ConsumerGroup:
    """The group of a Redis stream as seen by one of its consumers, whose name nobody else uses at the same time."""

    def __init__(self, redis: Redis, stream: str, group: str, consumer: str) -> None:
        self.stream, self.group, self.consumer = stream, group, consumer
        self._redis = redis

    async def create(self) -> None:
        """Create the stream and the group, reading from the stream's beginning, unless they are there."""
        try:
            await self._redis.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read_new(self, count: int, block_ms: int) -> list[Entry]:
        """Entries that no consumer has been given yet, waited for `block_ms` at most; this consumer has them now."""
        return await self._read(">", count, block_ms)

    async def read_unacknowledged(self, count: int) -> list[Entry]:
        """The oldest entries that this consumer has; those that were deleted meanwhile have no fields."""
        return await self._read("0", count, None)

    async def _read(self, after: str, count: int, block_ms: int | None) -> list[Entry]:
        try:
            answer: Any = await self._redis.xreadgroup(
                self.group, self.consumer, {self.stream: after}, count=count, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.create()
            return []
        return _entries(answer)

    async def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Say that entries need not be read again, by anyone of the group."""
        await self._redis.xack(self.stream, self.group, *entry_ids)

    async def take_over(self, idle_ms: int, count: int) -> bool:
        """Make entries this consumer's that somebody has left unacknowledged for so long; whether there were any."""
        return bool(
            await self._redis.xautoclaim(self.stream, self.group, self.consumer, idle_ms, count=count, justid=True)
        )

    async def set_aside(self, poison: Sequence[tuple[Entry, str]], keep: int) -> None:
        """Append entries with the reason why they are no events to `<stream>:dead`, which keeps about `keep`."""
        pipe = self._redis.pipeline(transaction=False)
        for (entry_id, fields), reason in poison:
            letter: dict[Any, Any] = {"entry": entry_id, "reason": reason}
            letter |= {f"field:{name}": value for name, value in fields.items()}
            pipe.xadd(f"{self.stream}:dead", letter, maxlen=keep, approximate=True)
        await pipe.execute()

    async def trim(self) -> None:
        """Remove the entries that every group has acknowledged."""
        needed = [await self._first_needed(row) for row in await self._redis.xinfo_groups(self.stream)]
        if needed:
            await self._redis.xtrim(self.stream, minid=min(needed, key=_parts), approximate=False)

    async def backlog(self) -> Backlog:
        """What is left for this group; Redis 6.2 counts all that the stream holds, exact after a trim by one group."""
        rows = await self._redis.xinfo_groups(self.stream)
        mine = next((row for row in rows if row["name"] == self.group), None)
        if mine is None:
            return Backlog(0, None)
        oldest: Any = await self._redis.xrange(self.stream, min=await self._first_needed(mine), count=1)
        if not oldest:
            return Backlog(0, None)
        undelivered = mine.get("lag")
        left = await self._redis.xlen(self.stream) if undelivered is None else undelivered + mine["pending"]
        return Backlog(left, _parts(oldest[0][0])[0])

    async def forget_consumers(self, idle_ms: int) -> None:
        """Delete the names of consumers that own nothing and have not been heard of for so long."""
        await self._redis.eval(_FORGET, 1, self.stream, self.group, idle_ms)

    async def _first_needed(self, group: Mapping[str, Any]) -> str:
        """The smallest id that a group, a row of XINFO GROUPS, has not acknowledged or not been given."""
        pending = await self._redis.xpending(self.stream, group["name"])
        return str(pending["min"] or _next(group["last-delivered-id"]))


def _entries(answer: Any) -> list[Entry]:
    """The entries of one stream in an XREADGROUP reply, of protocol version 2 or 3."""
    if isinstance(answer, dict):
        return [entry for batches in answer.values() for batch in batches for entry in batch]
    return [entry for _, entries in answer or () for entry in entries]


def _next(entry_id: str) -> str:
    """The smallest id after this one; the greatest of all has none, and stays."""
    milliseconds, number = _parts(entry_id)
    if number < _GREATEST:
        return f"{milliseconds}-{number + 1}"
    return f"{milliseconds + 1}-0" if milliseconds < _GREATEST else entry_id


def _parts(entry_id: str) -> tuple[int, int]:
    """Milliseconds since 1970, and the number within that millisecond."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
