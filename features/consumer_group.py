"""The source of `ScreenIngester`: the protocol `Group`, and its implementation for a Redis stream, `ConsumerGroup`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

_GREATEST = 2**64 - 1
"""The largest value of either part of an entry's id."""
Entry = tuple[str, dict[str, str]]
"""An entry's id and fields."""
_FORGET = """
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
"""
"""KEYS: the stream. ARGV: the group, milliseconds. A script, since deleting a consumer deletes its pending entries, and
one might be delivered between two commands.
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a group has not acknowledged yet."""

    entries: int
    oldest_ms: int | None
    """When the oldest of them was appended, in milliseconds since 1970; None if there is none."""


class Group(Protocol):
    """A consumer group, from the side of one of its consumers.

    Any method may raise redis.RedisError, OSError or TimeoutError; the ingester then tries again later.
    """

    async def create(self) -> None:
        """Create the group unless it exists; it reads from the beginning."""

    async def read_new(self, count: int, block_ms: int) -> list[Entry]:
        """At most `count` entries that were not delivered to any consumer yet; waits up to `block_ms` milliseconds."""

    async def read_unacknowledged(self, count: int) -> list[Entry]:
        """The oldest entries that this consumer holds and has not acknowledged; deleted ones have no fields."""

    async def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Mark entries as processed: no consumer is given them again."""

    async def take_over(self, idle_ms: int, count: int) -> bool:
        """Claim up to `count` entries that some consumer has held for `idle_ms`; False if there were none."""

    async def set_aside(self, poison: Sequence[tuple[Entry, str]], keep: int) -> None:
        """Write invalid entries, each with the reason, to a dead-letter log of about `keep` entries."""

    async def trim(self) -> None:
        """Delete entries that every group has acknowledged; nothing to do if the source does so itself."""

    async def backlog(self) -> Backlog:
        """What the group has not acknowledged yet."""

    async def forget_consumers(self, idle_ms: int) -> None:
        """Delete consumers that hold no entries and were idle for `idle_ms`; nothing to do if they have no names."""


class ConsumerGroup:
    """A consumer group of a Redis stream; the consumer's name must be unique."""

    def __init__(self, redis: Redis, stream: str, group: str, consumer: str) -> None:
        self.stream, self.group, self.consumer = stream, group, consumer
        self._redis = redis

    async def create(self) -> None:
        """Create the stream and the group unless they exist."""
        try:
            await self._redis.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read_new(self, count: int, block_ms: int) -> list[Entry]:
        """New entries, which this consumer holds until it acknowledges them."""
        return await self._read(">", count, block_ms)

    async def read_unacknowledged(self, count: int) -> list[Entry]:
        """The oldest entries that this consumer holds; those deleted from the stream have no fields."""
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
        """Mark entries as processed for the whole group."""
        await self._redis.xack(self.stream, self.group, *entry_ids)

    async def take_over(self, idle_ms: int, count: int) -> bool:
        """Claim entries that some consumer has held for `idle_ms`; returns whether there were any."""
        return bool(
            await self._redis.xautoclaim(self.stream, self.group, self.consumer, idle_ms, count=count, justid=True)
        )

    async def set_aside(self, poison: Sequence[tuple[Entry, str]], keep: int) -> None:
        """Append entries and the reasons to the dead-letter stream `<stream>:dead`, which keeps about `keep`."""
        pipe = self._redis.pipeline(transaction=False)
        for (entry_id, fields), reason in poison:
            letter: dict[Any, Any] = {"entry": entry_id, "reason": reason}
            letter |= {f"field:{name}": value for name, value in fields.items()}
            pipe.xadd(f"{self.stream}:dead", letter, maxlen=keep, approximate=True)
        await pipe.execute()

    async def trim(self) -> None:
        """Delete the entries that every group has acknowledged."""
        needed = [await self._first_needed(row) for row in await self._redis.xinfo_groups(self.stream)]
        if needed:
            await self._redis.xtrim(self.stream, minid=min(needed, key=_parts), approximate=False)

    async def backlog(self) -> Backlog:
        """What this group has not acknowledged. Redis 6.2 knows no lag of a group: there, all of the stream counts."""
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
        """Delete consumers that hold no entries and were idle for longer than `idle_ms`."""
        await self._redis.eval(_FORGET, 1, self.stream, self.group, idle_ms)

    async def _first_needed(self, group: Mapping[str, Any]) -> str:
        """The smallest id that a group (a row of XINFO GROUPS) has not acknowledged, or else not received."""
        pending = await self._redis.xpending(self.stream, group["name"])
        return str(pending["min"] or _next(group["last-delivered-id"]))


def _entries(answer: Any) -> list[Entry]:
    """The entries in an XREADGROUP reply about one stream: a dict in RESP3, a list in RESP2."""
    if isinstance(answer, dict):
        return [entry for batches in answer.values() for batch in batches for entry in batch]
    return [entry for _, entries in answer or () for entry in entries]


def _next(entry_id: str) -> str:
    """The next possible id; the largest one is returned as it is."""
    milliseconds, number = _parts(entry_id)
    if number < _GREATEST:
        return f"{milliseconds}-{number + 1}"
    return f"{milliseconds + 1}-0" if milliseconds < _GREATEST else entry_id


def _parts(entry_id: str) -> tuple[int, int]:
    """Milliseconds since 1970, and the number within that millisecond."""
    milliseconds, number = entry_id.split("-")
    return int(milliseconds), int(number)
