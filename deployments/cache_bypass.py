"""Small batches of texts that are new to this replica of the ingress go past the cache, straight to a classifier.

The cache hardly ever knows them, and asking it costs a lone message as much time as a third of its inference. It learns
of them a moment later. All texts go that way while it does not answer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.cache import Learned, as_dependency_error
from deployments.detached import detached
from deployments.generations import Generations
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from models.context import Floats

logger = logging.getLogger(__name__)
BYPASS_TOKENS = 128
"""Half a dozen short messages: for more, a hop more hardly counts."""
ENTRIES = 65_536
CACHE_TIMEOUT_FACTOR = 1.06
"""How much longer than the batch's `within_s` the cache may take."""
MIN_BLAME_S = 0.45
"""How long a batch must have waited for the cache before the cache is taken to hang: one with little time left to its
deadline gives up sooner, whatever the cache does."""
CACHE_BREAKER = BreakerConfig(failures=1, pause_s=10.0)
"""One batch in ten seconds tries a cache that hangs, since it then holds up one of the batches in flight."""
LEARN_AFTER_S = 0.05
"""How long answers wait for others before the cache is told of all of them."""
MAX_TELLING = 4
"""Messages to the cache on their way; beyond, what was learned is dropped."""


class CacheBypass:
    """The way of token batches to logits, through `cache` or past it.

    Texts that were seen before are remembered as hashes of their tokens. A text that is taken for known by mistake goes
    through the cache, one that is taken for new costs an inference: neither changes an answer. While a batch of this
    caller is on its way through the cache, others follow it, since the cache then chooses a classifier that has none.

    Args:
        cache: answers token batches, and takes `Learned`.
        classify: a classifier without a cache.
    """

    def __init__(
        self,
        cache: Callable[[TokenBatch | Learned], Awaitable[LogitBatch]],
        classify: Callable[[TokenBatch], Awaitable[LogitBatch]],
        few_tokens: int = BYPASS_TOKENS,
        entries: int = ENTRIES,
        learn_after_s: float = LEARN_AFTER_S,
    ) -> None:
        self.cache, self.classify = cache, classify
        self._few_tokens, self._learn_after_s = few_tokens, learn_after_s
        self._breaker = CircuitBreaker(CACHE_BREAKER)
        self._recent: Generations[int, bool] = Generations(entries)
        self._learned: list[tuple[TokenBatch, Floats]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._passed = self._through = 0

    async def __call__(self, batch: TokenBatch) -> LogitBatch:
        """(n) token vectors to (n, outputs) logits.

        Raises:
            DependencyError: neither way leads to a classifier.
        """
        few_and_new = self._note(batch) and len(batch.ids) <= self._few_tokens
        first, second = self._through_cache, self._past_cache
        if few_and_new and (self._breaker.open or not self._through):
            first, second = second, first
        try:
            return await first(batch)
        except Exception as error:
            logger.info("%s: %s; the other way is tried", first.__name__, type(error).__name__)
        try:
            return await second(batch)
        except Exception as error:
            raise as_dependency_error(error) from error

    async def _through_cache(self, batch: TokenBatch) -> LogitBatch:
        if not self._breaker.allows():
            raise DependencyError("the cache does not answer")
        if self._learned:
            self._tell()
            await asyncio.sleep(0)  # the news leaves first, and may be what this batch asks for
        self._through += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(batch.within_s * CACHE_TIMEOUT_FACTOR):
                answer = await self.cache(batch)
        except (Exception, asyncio.CancelledError) as error:
            unanswered = isinstance(error, asyncio.CancelledError | TimeoutError)
            blamed = not unanswered or loop.time() - began >= max(batch.within_s, MIN_BLAME_S)
            if blamed and self._breaker.failed():
                logger.warning("the cache: %s; done without", type(error).__name__)
            raise
        finally:
            self._through -= 1
        self._breaker.succeeded()
        return answer

    async def _past_cache(self, batch: TokenBatch) -> LogitBatch:
        started = time.perf_counter()
        answer = await self.classify(batch)
        self._learn(batch, answer.logits)
        self._passed += len(batch.lengths)
        spent = {"classify": (time.perf_counter() - started) * 1000, **answer.milliseconds}
        return replace(answer, milliseconds=spent)

    def counts(self) -> dict[str, float]:
        return {"cache_passed_total": self._passed}

    def _note(self, batch: TokenBatch) -> bool:
        """Remember the texts; whether all of them are new, and no two alike."""
        keys = {hash((batch.version, row.tobytes())) for row in batch.rows()}
        unknown = [key for key in keys if not self._recent.get(key)]
        for key in unknown:
            self._recent.put(key, True)
        return len(unknown) == len(batch.lengths)

    def _learn(self, batch: TokenBatch, logits: Floats) -> None:
        self._learned.append((batch, logits))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._learn_after_s, self._tell)

    def _tell(self) -> None:
        """Send the cache what was learned, unless it does not keep up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        learned, self._learned = self._learned, []
        if len(self._telling) < MAX_TELLING:
            task = detached(self._send(Learned(learned)))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _send(self, news: Learned) -> None:
        try:
            await self.cache(news)
        except Exception as error:
            logger.info("the cache was not told of %d batches: %s", len(news.answers), type(error).__name__)
