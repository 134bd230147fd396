"""Screen events from the Redis stream into the feature store, at least once, idempotently.

An entry is acknowledged only after it is stored, and storing twice changes nothing, so a crash at any moment
neither loses nor doubles an event. Entries that cannot be parsed go to a dead-letter stream.
"""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from features.consumer_group import ConsumerGroup, Entry, Group
from features.schema import SCREEN_STREAM, ScreenEvent, screen_event
from features.store import FeatureStore

logger = logging.getLogger(__name__)
FOREIGN = "user_id: the user's key in the feature store holds something else than screens"
"""The reason in the dead-letter stream when a user's key is not a sorted set."""
_PAGE = 1000
_FORGET_MS = 3_600_000
"""Consumers that have been idle this long and own no entries are deleted from the group."""


class IngesterConfig(BaseModel):
    """How the ingester reads its stream. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str = SCREEN_STREAM
    group: str = "screens"
    batch: int = Field(default=500, ge=1, le=10_000)
    block_ms: int = Field(default=500, ge=1, le=60_000)
    linger_ms: float = Field(default=5.0, ge=0, le=1000)
    """Pause after a batch that was not full, so that the next one holds more entries and costs less for each."""
    claim_idle_ms: int = Field(default=5_000, ge=100, le=86_400_000)
    """Entries that another consumer has left unacknowledged for this long are taken over."""
    housekeeping_s: float = Field(default=2.0, gt=0)
    """How often abandoned entries are claimed, the stream is trimmed and the lag is measured."""
    dead_letters: int = Field(default=10_000, ge=1, le=1_000_000_000)
    """Approximate maximum length of the dead-letter stream."""

    @property
    def client_timeout_s(self) -> float:
        """Socket time-out of the reading client: longer than the server blocks a read."""
        return self.block_ms / 1000 + 2.0


async def publish(redis: Redis, event: ScreenEvent, stream: str = SCREEN_STREAM) -> str:
    """Append an event to the stream; returns the entry's id."""
    fields: dict[Any, Any] = event.fields()
    return str(await redis.xadd(stream, fields))


async def publish_all(redis: Redis, events: Iterable[ScreenEvent], stream: str = SCREEN_STREAM) -> None:
    """Append events to the stream, in one round trip."""
    pipe = redis.pipeline(transaction=False)
    for event in events:
        fields: dict[Any, Any] = event.fields()
        pipe.xadd(stream, fields)
    await pipe.execute()


async def pages(redis: Redis, stream: str) -> AsyncIterator[list[Any]]:
    """All entries of a stream, in order: lists of ids and fields."""
    after = "-"
    while page := await redis.xrange(stream, after, "+", count=_PAGE):
        yield page
        after = "(" + str(page[-1][0])


class ScreenIngester:
    """One consumer of the group.

    Args:
        redis: a client whose time-out is `config.client_timeout_s`.
        store: where the screens are written.
        consumer: unique name; default: host name and a random part.
        clock: the current time, in UTC.
        group: the source of the events; default: the stream of `config` in `redis`.
    """

    def __init__(
        self,
        redis: Redis,
        store: FeatureStore,
        config: IngesterConfig | None = None,
        consumer: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        group: Group | None = None,
    ) -> None:
        self.config = config or IngesterConfig()
        self.consumer = consumer or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self.stored = self.dead = self.failures = 0
        self.lag = self.backlog = 0
        self._store, self._clock = store, clock
        self._group = group or ConsumerGroup(redis, self.config.stream, self.config.group, self.consumer)
        self._housekeeping_due = 0.0
        self._unfinished = True
        """Whether this consumer may hold unacknowledged entries: after a start, a failure, a take-over."""

    def counts(self) -> dict[str, float]:
        return {
            "screen_events_stored_total": self.stored,
            "screen_events_dead_total": self.dead,
            "screen_events_failures_total": self.failures,
        }

    def levels(self) -> dict[str, float]:
        return {"screen_events_lag_milliseconds": self.lag, "screen_events_lag_entries": self.backlog}

    async def prepare(self) -> None:
        """Create the group unless it exists. An unreachable Redis is no error here: `run` waits for it.

        Raises:
            redis.RedisError: Redis refuses permanently, because of user, password, permission or database, or because
                the stream's key has another type.
        """
        try:
            await self._group.create()
        except (RedisError, OSError, TimeoutError) as error:
            if _is_permanent(error):
                raise

    async def run(self) -> None:
        """Ingest until cancelled; while Redis fails, try again after 0.1 to 2 seconds."""
        pause, task = 0.1, asyncio.current_task()
        # The exception alone is not enough: `asyncio.wait_for`, which the Redis client uses, may lose it before 3.12.
        while task is None or not task.cancelling():
            try:
                if 0 < await self.step() < self.config.batch:
                    await asyncio.sleep(self.config.linger_ms / 1000)
                pause = 0.1
            except (RedisError, OSError, TimeoutError) as error:
                self.failures += 1
                logger.warning("screen events: %s; next try in %.1f s", error_reason(error), pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        raise asyncio.CancelledError

    async def step(self) -> int:
        """Process one batch: entries that this consumer holds unacknowledged, or else new ones, waiting for `block_ms`.

        Returns the number of entries.
        """
        unfinished, self._unfinished = self._unfinished, True  # in case anything below fails
        if time.monotonic() >= self._housekeeping_due:
            took_over = await self.housekeep()
            unfinished = unfinished or took_over
            self._housekeeping_due = 0.0 if took_over else time.monotonic() + self.config.housekeeping_s
        left_over = await self._group.read_unacknowledged(self.config.batch) if unfinished else []
        entries = left_over or await self._group.read_new(self.config.batch, self.config.block_ms)
        if entries:
            await self._process(entries)
        self._unfinished = bool(left_over)
        return len(entries)

    async def _process(self, entries: Sequence[Entry]) -> None:
        """Store valid events, write the others to the dead-letter stream, then acknowledge all."""
        events, poison, now = [], [], self._clock()
        for entry in entries:
            entry_id, fields = entry
            if not fields:
                logger.warning("screen events: entry %s was deleted before it was stored", entry_id)
                continue
            try:
                events.append((entry, screen_event(fields, now)))
            except ValueError as error:
                poison.append((entry, str(error)))
        if events and (foreign := await self._store.write_screens(event for _, event in events)):
            logger.warning("screen events: keys of %d users hold something else than screens", len(foreign))
            poison += [(entry, FOREIGN) for entry, event in events if event.user_id in foreign]
        if poison:
            await self._set_aside(poison)
        await self._group.acknowledge(entry_id for entry_id, fields in entries)
        self.stored += sum(bool(fields) for _, fields in entries) - len(poison)
        self.dead += len(poison)

    async def _set_aside(self, poison: Sequence[tuple[Entry, str]]) -> None:
        """Write entries to the dead-letter stream; if Redis refuses that permanently, drop them, or all would wait."""
        try:
            await self._group.set_aside(poison, self.config.dead_letters)
        except ResponseError as error:
            if not _is_permanent(error):
                raise
            logger.warning("screen events: %d are dropped, not set aside: %s", len(poison), error_reason(error))

    async def housekeep(self) -> bool:
        """Trim the stream, measure the lag, take over abandoned entries.

        Returns whether any were taken over; there may be more of them.
        """
        with suppress(OutOfMemoryError):  # the group may exist nevertheless, and trimming frees memory
            await self._group.create()
        await self._group.trim()
        backlog = await self._group.backlog()
        self.backlog = backlog.entries
        now_ms = int(self._clock().timestamp() * 1000)
        self.lag = 0 if backlog.oldest_ms is None else max(0, now_ms - backlog.oldest_ms)
        await self._group.forget_consumers(_FORGET_MS)
        return await self._group.take_over(self.config.claim_idle_ms, self.config.batch)


def error_reason(error: Exception) -> str:
    """An error's type and, from a pipeline, its reason; without the command's arguments, which may name users."""
    reason = str(error).rpartition("of pipeline caused error: ")[2].partition(", with args beginning with")[0]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _is_permanent(error: Exception) -> bool:
    """Whether Redis would refuse the same command again."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(word in str(error) for word in ("WRONGTYPE", "DB index"))
