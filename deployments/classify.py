"""The model stages: preprocessing and the text classifier, addressed by model version."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from deployments.protocol import LogitBatch, TextBatch, TokenBatch
from deployments.recent_tokens import RecentTokens
from features.preprocess import Ids, Preprocessor
from models.classifier import TextClassifier
from models.context import Floats

M = TypeVar("M")
ON_LOOP_TOKENS = 96
"""Half a dozen short messages, whose inference blocks the event loop for some milliseconds at most."""
PIECE = 4096
"""Characters tokenised without a pause: a whole batch of short messages. The worst text of this length takes 30 ms."""


class VersionTable(Generic[M]):
    """The models in use, by version: one that is lacking is loaded once, off the event loop.

    Args:
        load: version to a loaded and warmed model; runs in a thread.
        keep: versions held at once; the least recently used one is dropped.
    """

    def __init__(self, load: Callable[[str], M], keep: int = 3) -> None:
        self._load, self._keep = load, keep
        self._loaded: OrderedDict[str, M] = OrderedDict()
        self._loading: dict[str, asyncio.Task[M]] = {}

    def preload(self, version: str) -> None:
        """Load a version now, blocking; for constructors."""
        self._loaded[version] = self._load(version)

    async def get(self, version: str) -> M:
        """The model of a version.

        Raises:
            models.bundle.BundleError: there is no such bundle, or it is not fit to serve.
        """
        model = self._loaded.get(version)
        if model is not None:
            self._loaded.move_to_end(version)
            return model
        task = self._loading.get(version)
        if task is None:
            task = self._loading[version] = asyncio.ensure_future(self._fetch(version))
        return await asyncio.shield(task)

    async def _fetch(self, version: str) -> M:
        try:
            model = await asyncio.to_thread(self._load, version)
        finally:
            del self._loading[version]
        self._loaded[version] = model
        while len(self._loaded) > self._keep:
            self._loaded.popitem(last=False)
        return model

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(self._loaded)


def pieces(texts: Sequence[str], characters: int = PIECE) -> Iterator[Sequence[str]]:
    """The texts in order, cut into pieces that end with the text that exceeds so many characters."""
    start = total = 0
    for end, text in enumerate(texts, 1):
        total += len(text)
        if total > characters:
            yield texts[start:end]
            start, total = end, 0
    if start < len(texts):
        yield texts[start:]


class PreprocessStage:
    """Texts to tokens, by the bundle's own preprocessor."""

    def __init__(self, load: Callable[[str], Preprocessor]) -> None:
        self.table = VersionTable(lambda version: RecentTokens(load(version)))
        self._recalled = 0

    async def __call__(self, batch: TextBatch) -> TokenBatch:
        recent = await self.table.get(batch.version)
        made: list[Ids] = []
        for texts in pieces(batch.texts):
            if made:
                await asyncio.sleep(0)  # others are not kept waiting by texts that take long
            rows, recalled = recent.tokens(texts)
            self._recalled += recalled
            made += rows
        return TokenBatch.of(batch.version, made)

    def counts(self) -> dict[str, float]:
        return {"tokens_recalled_total": self._recalled}


class ClassifyStage:
    """Tokens to text logits, one batch after the other.

    Inference runs in a thread beside the event loop, but for batches of so few tokens that the switch to the thread
    and back (a fifth of a millisecond on a virtual machine) would count.
    """

    def __init__(self, load: Callable[[str], TextClassifier], few_tokens: int = ON_LOOP_TOKENS) -> None:
        self.table = VersionTable(load)
        self._few_tokens = few_tokens
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._in_thread = 0

    async def __call__(self, batch: TokenBatch) -> LogitBatch:
        classifier = await self.table.get(batch.version)
        started = time.perf_counter()
        if not self._in_thread and len(batch.ids) <= self._few_tokens:
            logits = classifier(batch.rows())
        else:
            logits = await self._beside_the_loop(classifier, batch)
        spent = {"inference": (time.perf_counter() - started) * 1000}
        return LogitBatch(batch.version, logits, np.zeros(len(logits), dtype=np.bool_), spent)

    async def _beside_the_loop(self, classifier: TextClassifier, batch: TokenBatch) -> Floats:
        loop = asyncio.get_running_loop()
        future = self._executor.submit(classifier, batch.rows())
        self._in_thread += 1
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left_thread))
        return await asyncio.wrap_future(future)

    def _left_thread(self) -> None:
        self._in_thread -= 1
