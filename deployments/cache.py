"""The prediction cache: text logits by (model version, tokens); bounded, expiring, single-flight.

Only the words are cached, so a hit is as fresh as a miss: the context part is added afterwards. A failed
inference is never stored, and equal texts that come through it share one inference.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from deployments.deadline import TOO_SLOW, DeadlinePassed
from deployments.defects import log_defect
from deployments.detached import detached
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from models.context import Floats

Key = tuple[str, bytes]
_ENTRY_OVERHEAD = 400
"""About what Python spends on a key, an array and their places, in bytes."""
INFERENCE_TIMEOUT_S = 4.0
"""When an inference counts as lost: its callers have given up long before. Its texts may then be classified anew."""


class CacheConfig(BaseModel):
    """Limits of the prediction cache. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    max_bytes: int = Field(default=64 * 2**20, ge=0)
    ttl_s: float = Field(default=3600.0, gt=0)


@dataclass(frozen=True, slots=True)
class Learned:
    """Logits from a classifier that was called past the cache, for the cache to keep."""

    answers: list[tuple[TokenBatch, Floats]]
    """Token vectors, and their logits (n, outputs) float32."""


class PredictionCache:
    """Answers token batches from memory, and asks `classify` once for each distinct text that it lacks."""

    def __init__(
        self,
        classify: Callable[[TokenBatch], Awaitable[LogitBatch]],
        config: CacheConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = INFERENCE_TIMEOUT_S,
    ) -> None:
        self.config = config or CacheConfig()
        self.hits = self.misses = self.shared = self.evicted = self.bytes = 0
        self._classify, self._clock, self._timeout_s = classify, clock, timeout_s
        self._entries: OrderedDict[Key, tuple[Floats, float]] = OrderedDict()
        self._in_flight: dict[Key, asyncio.Future[Floats]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def __call__(self, batch: TokenBatch | Learned) -> LogitBatch:
        """(n) token vectors to (n, outputs) logits; none for what was learned elsewhere.

        Messages whose inference failed or is not there after `within_s` of the batch get rows of NaN: a classifier that
        hangs must not look like a cache that does. Those found in memory are answered all the same.
        """
        if isinstance(batch, Learned):
            return self._learn(batch)
        if not self.config.enabled:
            return await self._pass_on(batch)
        rows = batch.rows()
        keys = [(batch.version, row.tobytes()) for row in rows]
        found = [self._get(key) for key in keys]
        cached = np.array([logits is not None for logits in found], dtype=np.bool_)
        waits, fresh = self._claim(keys, found)
        left: set[asyncio.Future[Any]] = {future for i, future in waits.items() if keys[i] not in fresh}
        fill = None
        if fresh:
            misses = TokenBatch.of(batch.version, [rows[i] for i in fresh.values()])
            fill = detached(self._fill(list(fresh), misses))
            left.add(fill)
        if left:
            await asyncio.wait(left, timeout=batch.within_s)
        failure, late = None, set[int]()
        for i, future in waits.items():
            error = future.exception() if future.done() else DeadlinePassed()
            if isinstance(error, DeadlinePassed):
                late.add(i)
            elif error:
                failure = failure or str(error)
            else:
                found[i] = future.result()
        milliseconds = fill.result() if fill is not None and fill.done() else {}
        return LogitBatch(batch.version, _stack(found), cached, milliseconds, failure, frozenset(late))

    def counts(self) -> dict[str, float]:
        return {
            "cache_hits_total": self.hits,
            "cache_misses_total": self.misses,
            "cache_shared_total": self.shared,
            "cache_evicted_total": self.evicted,
        }

    def levels(self) -> dict[str, float]:
        return {"cache_bytes": self.bytes, "cache_entries": len(self)}

    def configure(self, config: CacheConfig) -> None:
        """Change the limits while it answers; what is kept comes within them at once."""
        if not config.enabled or config.ttl_s < self.config.ttl_s:
            self.clear()
        self.config = config
        self._make_room()

    def clear(self) -> None:
        """Forget everything; counters stay."""
        self._entries.clear()
        self.bytes = 0

    def _claim(
        self, keys: Sequence[Key], found: Sequence[Floats | None]
    ) -> tuple[dict[int, asyncio.Future[Floats]], dict[Key, int]]:
        """The futures that messages without logits wait for, by row; and the rows that begin an inference, by key."""
        waits: dict[int, asyncio.Future[Floats]] = {}
        fresh: dict[Key, int] = {}
        for i, key in enumerate(keys):
            if found[i] is None:
                if key in self._in_flight:
                    self.shared += 1
                else:
                    fresh[key] = i
                    self._in_flight[key] = asyncio.get_running_loop().create_future()
                waits[i] = self._in_flight[key]
        return waits, fresh

    def _learn(self, news: Learned) -> LogitBatch:
        for tokens, rows in news.answers if self.config.enabled else ():
            for token_ids, logits in zip(tokens.rows(), rows, strict=True):
                key = (tokens.version, token_ids.tobytes())
                if self._fresh(key) is None:
                    self._put(key, logits.copy())
        return LogitBatch("", np.empty((0, 0), np.float32), np.zeros(0, np.bool_))

    async def _pass_on(self, batch: TokenBatch) -> LogitBatch:
        n = len(batch.lengths)
        self.misses += n
        nothing = LogitBatch(batch.version, np.empty((n, 0), np.float32), np.zeros(n, np.bool_))
        try:
            async with asyncio.timeout(batch.within_s):
                return await self._classify(batch)
        except TimeoutError:
            return replace(nothing, late=frozenset(range(n)))
        except Exception as error:
            return replace(nothing, failure=str(as_dependency_error(error)))

    async def _fill(self, keys: list[Key], misses: TokenBatch) -> dict[str, float]:
        """One inference for all keys; whoever waits for them gets the row or the error."""
        started = time.perf_counter()
        self.misses += len(keys)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._classify(misses)
            if len(answer.logits) != len(keys):
                raise ValueError(f"{len(keys)} texts got {len(answer.logits)} rows of logits")
        except TimeoutError:
            self._settle(keys, DeadlinePassed(TOO_SLOW))
            return {}
        except Exception as error:
            self._settle(keys, as_dependency_error(error))
            return {}
        except BaseException:
            self._settle(keys, DependencyError("classifier: cancelled"))
            raise
        for key, logits in zip(keys, answer.logits, strict=True):
            self._put(key, logits.copy())
            self._in_flight.pop(key).set_result(logits)
        return {"classify": (time.perf_counter() - started) * 1000, **answer.milliseconds}

    def _settle(self, keys: list[Key], failure: DependencyError | DeadlinePassed) -> None:
        for key in keys:
            future = self._in_flight.pop(key)
            future.set_exception(failure)
            future.exception()

    def _get(self, key: Key) -> Floats | None:
        logits = self._fresh(key)
        if logits is not None:
            self._entries.move_to_end(key)
            self.hits += 1
        return logits

    def _fresh(self, key: Key) -> Floats | None:
        entry = self._entries.get(key)
        if entry is not None and entry[1] < self._clock():
            self._remove(key)
            return None
        return None if entry is None else entry[0]

    def _put(self, key: Key, logits: Floats) -> None:
        if key in self._entries:
            self._remove(key)
        self._entries[key] = (logits, self._clock() + self.config.ttl_s)
        self.bytes += _size(key, logits)
        self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self.config.max_bytes and self._entries:
            self._remove(next(iter(self._entries)))
            self.evicted += 1

    def _remove(self, key: Key) -> None:
        logits, _ = self._entries.pop(key)
        self.bytes -= _size(key, logits)


def as_dependency_error(error: Exception) -> DependencyError:
    """An error in words that a client may read: others' messages may name paths or hold a stack trace."""
    if type(error) is DependencyError:
        return error
    if isinstance(error, TimeoutError):
        return DependencyError(TOO_SLOW)
    log_defect("classifier", error)
    return DependencyError(f"classifier: {type(error).__name__}")


def _stack(found: Sequence[Floats | None]) -> Floats:
    """Rows to an array, NaN where there is none."""
    width = next((len(row) for row in found if row is not None), 0)
    lacking = np.full(width, np.nan, dtype=np.float32)
    return np.stack([lacking if row is None else row for row in found])


def _size(key: Key, logits: Floats) -> int:
    return len(key[1]) + logits.nbytes + _ENTRY_OVERHEAD
