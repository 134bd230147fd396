"""The gather stage: features from the store; without the store, empty features that are marked as degraded."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, time

from redis.exceptions import RedisError

from deployments.breaker import CircuitBreaker
from deployments.protocol import FeatureBatch
from features.store import FeatureStore
from features.usage import run_window

logger = logging.getLogger(__name__)


class FeatureGatherer:
    """Features of a batch of users in one round trip, within `timeout_s`, or empty and marked degraded."""

    def __init__(self, store: FeatureStore, timeout_s: float, breaker: CircuitBreaker | None = None) -> None:
        self._store, self._timeout_s = store, timeout_s
        self.breaker = breaker or CircuitBreaker()
        self.failures = self.skipped = 0
        self._run: str | None = None

    async def __call__(self, user_ids: Sequence[str]) -> FeatureBatch:
        """Does not raise when the store fails."""
        if not self.breaker.allows():
            self.skipped += 1
            return FeatureBatch.missing(len(user_ids))
        try:
            async with asyncio.timeout(self._timeout_s):
                reading = await self._store.reading(user_ids)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self.failures += 1
            if self.breaker.failed():
                logger.warning("feature store: %s; answering without it", type(error).__name__)
            return FeatureBatch.missing(len(user_ids))
        if self.breaker.succeeded():
            logger.warning("feature store: answers again")
        self._run = reading.usage_run or self._run
        return FeatureBatch(reading.users, (), reading.at_ms, reading.usage_run)

    def counts(self) -> dict[str, float]:
        return {"gather_failures_total": self.failures, "gather_skipped_total": self.skipped}

    def levels(self) -> dict[str, float]:
        window = run_window(self._run or "")
        ends = {"usage_run_timestamp_seconds": datetime.combine(window[0], time(), UTC).timestamp()} if window else {}
        return {"feature_store_breaker_open": float(self.breaker.open)} | ends
