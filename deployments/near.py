"""A stage that exists twice: as a deployment, for large batches, and in the caller's process, for small ones.

A hop costs two processes some tenths of a millisecond each, whether one message travels or fifty. A few short messages
are gathered or tokenised in less than that. The local stage also stands in for a deployment that is gone or too slow.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.link_server import Call
from deployments.protocol import DependencyError, TextBatch
from deployments.request_meter import Metric

logger = logging.getLogger(__name__)
SHORT = 256
"""Characters for which a text counts as one message; a longer one counts as several."""


class NearConfig(BaseModel):
    """Which batches the ingress handles itself, to save hops. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hop_from: int = Field(default=16, ge=0)
    """Batches smaller than this (see `size`) are done in the ingress; 0 switches that off, the fallback included."""
    patience_ms: float = Field(default=120, gt=0)
    """How long the deployment may take before the batch is done here."""
    past_cache: bool = True
    """Whether a few texts that are new go past the cache, see `CacheBypass`; an inline cache costs no hop anyway."""


class Near:
    """Calls the local stage `here` for small batches and the deployment `there` for others.

    A batch that `there` fails, or does not answer within `patience_ms`, is done `here`, too. After that only one batch
    a second tries `there`, so that a stage that hangs does not hold up every batch.
    """

    def __init__(self, here: Call, there: Call, config: NearConfig) -> None:
        self.here, self.there, self.config = here, there, config
        self._breaker = CircuitBreaker(BreakerConfig(failures=1))
        self._small = self._instead = 0

    async def __call__(self, batch: Sequence[str] | TextBatch) -> Any:
        if size(batch) < self.config.hop_from:
            self._small += 1
            return await self.here(batch)
        if self._breaker.allows():
            try:
                async with asyncio.timeout(self.config.patience_ms / 1000):
                    answer = await self.there(batch)
            except (DependencyError, TimeoutError) as error:
                if self._breaker.failed():
                    logger.warning("%s: its deployment: %s; done here", type(self.here).__name__, type(error).__name__)
            else:
                if self._breaker.succeeded():
                    logger.warning("%s: its deployment answers again", type(self.here).__name__)
                return answer
        self._instead += 1
        return await self.here(batch)

    def counts(self) -> dict[Metric, float]:
        return {
            ("stage_calls_total", "way", "here"): self._small,
            ("stage_calls_total", "way", "instead"): self._instead,
        }


def near(there: Call, build: Callable[[], Call] | None, config: NearConfig) -> Call:
    """The stage `there`; with a local one in front of it (`Near`) where it can be built in this process."""
    return there if build is None else Near(build(), there, config)


def size(batch: Sequence[str] | TextBatch) -> int:
    """Messages in a batch; of texts, a long one counts once for every `SHORT` characters that it has begun."""
    if isinstance(batch, TextBatch):
        return sum(len(text) // SHORT + 1 for text in batch.texts)
    return len(batch)
