"""Screen events from the Redis stream into the feature store, at least once, idempotently.

An entry is acknowledged only after it is stored, and storing twice changes nothing, so a crash at any moment
neither loses nor doubles an event. Entries that cannot be parsed go to a dead-letter stream.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from features.schema import SCREEN_STREAM, ScreenEvent, screen_event
from features.store import FeatureStore

logger = logging.getLogger(__name__)
Entry = tuple[str, dict[str, str]]


class IngesterConfig(BaseModel):
    """How the ingester reads its stream. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str = SCREEN_STREAM
    group: str = "screens"
    batch: int = Field(default=500, ge=1, le=10_000)
    block_ms: int = Field(default=500, ge=1, le=60_000)
    claim_idle_ms: int = Field(default=5_000, ge=100)
    """Entries that another consumer has left unacknowledged for this long are taken over."""
    housekeeping_s: float = Field(default=2.0, gt=0)
    """How often entries are claimed, the stream is trimmed and the lag is measured."""
    dead_letters: int = Field(default=10_000, ge=1)
    """About how many entries the dead-letter stream keeps."""


async def publish(redis: Redis, event: ScreenEvent, stream: str = SCREEN_STREAM) -> str:
    """Append an event to the stream; returns the entry's id."""
    fields: dict[Any, Any] = event.fields()
    return str(await redis.xadd(stream, fields))


class ScreenIngester:
    """One member of the consumer group.

    Args:
        redis: a client whose time-out exceeds `block_ms`.
        store: where the screens go.
        consumer: unique name; defaults to host name and a random part.
    """

    def __init__(
        self,
        redis: Redis,
        store: FeatureStore,
        config: IngesterConfig | None = None,
        consumer: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config or IngesterConfig()
        self.consumer = consumer or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self.stored = self.dead = self.failures = 0
        self.lag = 0
        self._redis, self._store, self._clock = redis, store, clock
        self._housekeeping_due = 0.0

    def counts(self) -> dict[str, float]:
        return {
            "screen_events_stored_total": self.stored,
            "screen_events_dead_total": self.dead,
            "screen_events_failures_total": self.failures,
        }

    def levels(self) -> dict[str, float]:
        return {"screen_events_lag_milliseconds": self.lag}

    async def run(self) -> None:
        """Ingest until cancelled; a lost or restarted Redis is waited for."""
        pause, task = 0.1, asyncio.current_task()
        # The exception alone is not enough: `asyncio.wait_for`, which the Redis client uses, may lose it before 3.12.
        while task is None or not task.cancelling():
            try:
                await self.step()
                pause = 0.1
            except (RedisError, OSError, TimeoutError) as error:
                self.failures += 1
                logger.warning("screen events: %s; next try in %.1f s", type(error).__name__, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        raise asyncio.CancelledError

    async def step(self) -> int:
        """Read one batch, waiting at most `block_ms`, and store it; returns the number of entries."""
        if time.monotonic() >= self._housekeeping_due:
            await self.housekeep()
            self._housekeeping_due = time.monotonic() + self.config.housekeeping_s
        try:
            answer = await self._redis.xreadgroup(
                self.config.group,
                self.consumer,
                {self.config.stream: ">"},
                count=self.config.batch,
                block=self.config.block_ms,
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.create_group()
            return 0
        entries = _entries(answer)
        await self.process(entries)
        return len(entries)

    async def create_group(self) -> None:
        """Create the stream and the group, reading from the stream's beginning."""
        try:
            await self._redis.xgroup_create(self.config.stream, self.config.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def process(self, entries: Sequence[Entry]) -> None:
        """Store the events, set poison aside, then acknowledge."""
        if not entries:
            return
        events, poison, now = [], [], self._clock()
        for entry_id, fields in entries:
            try:
                events.append(screen_event(fields, now))
            except ValueError as error:
                poison.append((entry_id, fields, str(error)))
        if events:
            await self._store.write_screens(events)
        for entry_id, fields, reason in poison:
            letter: dict[Any, Any] = {
                "entry": entry_id,
                "reason": reason,
                **{f"field:{k}": v for k, v in fields.items()},
            }
            await self._redis.xadd(
                f"{self.config.stream}:dead", letter, maxlen=self.config.dead_letters, approximate=True
            )
        await self._redis.xack(self.config.stream, self.config.group, *(entry_id for entry_id, _ in entries))
        self.stored += len(events)
        self.dead += len(poison)

    async def housekeep(self) -> None:
        """Create the group if need be, take over abandoned entries, trim what all have read, measure lag."""
        stream, group = self.config.stream, self.config.group
        await self.create_group()
        claimed = await self._redis.xautoclaim(
            stream, group, self.consumer, min_idle_time=self.config.claim_idle_ms, count=self.config.batch
        )
        await self.process([(entry_id, fields) for entry_id, fields in claimed[1] if fields])
        if any(not fields for _, fields in claimed[1]):
            await self._forget_deleted()
        groups = await self._redis.xinfo_groups(stream)
        mine = next(g for g in groups if g["name"] == group)
        pending = await self._redis.xpending(stream, group)
        if len(groups) == 1:
            await self._redis.xtrim(stream, minid=pending["min"] or mine["last-delivered-id"], approximate=True)
        newest = (await self._redis.xinfo_stream(stream))["last-generated-id"]
        self.lag = max(0, _milliseconds(newest) - _milliseconds(pending["min"] or mine["last-delivered-id"]))

    async def _forget_deleted(self) -> None:
        """Acknowledge entries that were deleted before they were stored; Redis 7 does that itself, 6.2 does not."""
        stream, group = self.config.stream, self.config.group
        mine = await self._redis.xpending_range(stream, group, "-", "+", self.config.batch, self.consumer)
        for entry_id in [row["message_id"] for row in mine]:
            if not await self._redis.xrange(stream, entry_id, entry_id):
                await self._redis.xack(stream, group, entry_id)
                logger.warning("screen events: entry %s was deleted before it was stored", entry_id)


def _entries(answer: Any) -> list[Entry]:
    """The entries of one stream in an XREADGROUP reply, of protocol version 2 or 3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [entry for batches in answer.values() for batch in batches for entry in batch]
    return [entry for _, batch in answer for entry in batch]


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
