"""A stage twice: a deployment of its own for batches, and in the caller's process for what is not worth a hop.

A hop costs two processes some tenths of a millisecond each, whether one message travels or fifty. Few short messages
are gathered or tokenised in less than that. And a deployment that is gone, or does not answer in time, is no reason to
keep customers waiting for what the caller can do itself.
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
    """How the ingress spares small batches hops. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hop_from: int = Field(default=16, ge=0)
    """Batches smaller than this (see `size`) are done in the ingress; 0 switches that off, the fallback included."""
    patience_ms: float = Field(default=120, gt=0)
    """How long the deployment may take before the batch is done here."""
    past_cache: bool = True
    """Whether a few texts that are new go past the cache, see `CacheBypass`; an inline cache costs no hop anyway."""


class Near:
    """Does small batches `here` and sends others `there`; does those here, too, that `there` fails.

    After a failure it tries `there` with one batch a second, so that a stage that hangs does not hold up each batch.
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
    """A stage as it is, or, where it can be built here, a `Near` one."""
    return there if build is None else Near(build(), there, config)


def size(batch: Sequence[str] | TextBatch) -> int:
    """Messages in a batch; of texts, a long one counts once for every `SHORT` characters that it has begun."""
    if isinstance(batch, TextBatch):
        return sum(len(text) // SHORT + 1 for text in batch.texts)
    return len(batch)
