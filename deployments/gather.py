"""Gather what the words don't say; with the store down, say so and answer all the same."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError

from deployments.protocol import FeatureBatch
from features.store import FeatureStore

logger = logging.getLogger(__name__)


class BreakerConfig(BaseModel):
    """When to stop asking a store that does not answer. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=3, ge=1)
    """Consecutive failures after which the store is left alone."""
    pause_s: float = Field(default=1.0, gt=0)
    """How long it is left alone before one batch tries again."""


class CircuitBreaker:
    """Closed, then open after consecutive failures, then half-open: one caller tries (Nygard, 2007)."""

    def __init__(self, config: BreakerConfig | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config or BreakerConfig()
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    @property
    def open(self) -> bool:
        return self._failures >= self.config.failures

    def allows(self) -> bool:
        """Whether to make the call. While open, one caller in each `pause_s` is let through."""
        if not self.open:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + self.config.pause_s
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._retry_at = self._clock() + self.config.pause_s


class FeatureGatherer:
    """Features of a batch of users in one round trip, within `timeout_s`, or empty and marked degraded."""

    def __init__(self, store: FeatureStore, timeout_s: float, breaker: CircuitBreaker | None = None) -> None:
        self._store, self._timeout_s = store, timeout_s
        self.breaker = breaker or CircuitBreaker()
        self.failures = self.skipped = 0

    async def __call__(self, user_ids: Sequence[str]) -> FeatureBatch:
        """Never raises for a store's sake."""
        if not self.breaker.allows():
            self.skipped += 1
            return FeatureBatch.missing(len(user_ids))
        try:
            async with asyncio.timeout(self._timeout_s):
                reading = await self._store.reading(user_ids)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self.failures += 1
            was_open = self.breaker.open
            self.breaker.failed()
            if self.breaker.open and not was_open:
                logger.warning("feature store: %s; answering without it", type(error).__name__)
            return FeatureBatch.missing(len(user_ids))
        if self.breaker.open:
            logger.warning("feature store: answers again")
        self.breaker.succeeded()
        return FeatureBatch(reading.users, (), reading.at_ms, reading.usage_run)

    def counts(self) -> dict[str, float]:
        return {"gather_failures_total": self.failures, "gather_skipped_total": self.skipped}

    def levels(self) -> dict[str, float]:
        return {"feature_store_breaker_open": float(self.breaker.open)}
