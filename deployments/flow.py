"""The way of a batch of messages, from validated queries to answers, in one function."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deployments.deadline import TOO_SLOW, DeadlinePassed, within_s
from deployments.protocol import (
    Action,
    DependencyError,
    Evidence,
    FeatureBatch,
    LogitBatch,
    PredictResponse,
    Query,
    RankedProduct,
    ServedFeatures,
    TextBatch,
    TokenBatch,
)
from deployments.served import ServedBatch
from models.bundle import Bundle
from models.calibrate import out_of_scope_share
from models.context import Floats, probabilities, softmax

GENERAL_QUEUE = "general"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, and where the time of its batch went."""

    response: PredictResponse
    milliseconds: Mapping[str, float]
    """Spent in each stage."""
    server_timing: str
    """The same as a header, written once a batch."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The stages and how they follow each other. A stage is any async callable from batch to batch."""

    gather: Callable[[list[str]], Awaitable[FeatureBatch]]
    preprocess: Callable[[TextBatch], Awaitable[TokenBatch]]
    classify: Callable[[TokenBatch], Awaitable[LogitBatch]]
    """The prediction cache in front of the classifier replicas."""
    desks: Mapping[str, str]
    """Product to desk; a product that is not listed has the desk of its own name."""
    gather_timeout_s: float = 0.25
    """How long to wait for the gather stage, its hop included, before answering without features."""
    record: Callable[[ServedBatch], None] | None = None
    """Told of every answered batch; must return at once."""

    async def answer(self, queries: Sequence[Query], bundle: Bundle) -> list[Answer | Exception]:
        """Answer a batch with one model; the features are gathered while the words are classified.

        Returns:
            For each query, in order, an answer, or the `DependencyError` or `DeadlinePassed` that prevented it.
        """
        started = time.perf_counter()
        gathering = asyncio.get_running_loop().create_task(self._features(queries))
        try:
            tokens, logits, spent = await self._text_logits(queries, bundle.version)  # takes longest: it goes first
            features, gathered = await gathering
        finally:
            gathering.cancel()
        milliseconds = {"gather": gathered, **spent}
        if not logits.logits.size:
            return [_failure(logits, i) for i in range(len(queries))]
        fusing = time.perf_counter()
        normalise = bundle.preprocessor.context
        contexts = [normalise(user.recent_screens, user.product_usage_60d) for user in features.users]
        context = bundle.context.logits(contexts)
        words = softmax(logits.logits, bundle.manifest.temperature)
        p = probabilities(logits.logits, context, bundle.manifest.temperature)
        deciding = time.perf_counter()
        milliseconds["fuse"] = (deciding - fusing) * 1000
        responses = self._decide(queries, bundle, features, logits, context, words, p)
        milliseconds["decide"] = (time.perf_counter() - deciding) * 1000
        milliseconds["flow"] = (time.perf_counter() - started) * 1000
        if self.record is not None:
            now = time.time()
            self.record(ServedBatch(now, queries, bundle, features, contexts, tokens, logits, responses))
        timing = ", ".join([f"{stage};dur={spent:.2f}" for stage, spent in milliseconds.items()])
        return [r if isinstance(r, Exception) else Answer(r, milliseconds, timing) for r in responses]

    async def _features(self, queries: Sequence[Query]) -> tuple[FeatureBatch, float]:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.gather_timeout_s):
                features = await self.gather([query.user_id for query in queries])
        except (DependencyError, TimeoutError) as error:  # the stage itself is gone, not only the store
            logger.warning("gather stage: %s; answering without features", type(error).__name__)
            features = FeatureBatch.missing(len(queries))
        return features, (time.perf_counter() - started) * 1000

    async def _text_logits(
        self, queries: Sequence[Query], version: str
    ) -> tuple[TokenBatch, LogitBatch, dict[str, float]]:
        started = time.perf_counter()
        tokens = await self.preprocess(TextBatch(version, [query.text for query in queries]))
        tokenised = time.perf_counter()
        logits = await self.classify(replace(tokens, within_s=within_s(tokens.within_s)))
        cache = (time.perf_counter() - tokenised) * 1000
        spent = {
            "preprocess": (tokenised - started) * 1000,
            "cache": cache,
            "classify": 0.0,
            **logits.milliseconds,
        }
        return tokens, logits, spent

    def _decide(
        self,
        queries: Sequence[Query],
        bundle: Bundle,
        features: FeatureBatch,
        logits: LogitBatch,
        context: Floats,
        words: Floats,
        p: Floats,
    ) -> list[PredictResponse | Exception]:
        manifest = bundle.manifest
        labels, k = manifest.labels, len(manifest.labels)
        out_of_scope = out_of_scope_share(words, k)
        order = np.argsort(-p[:, :k], axis=1, kind="stable").tolist()
        routes = manifest.routes(p[:, :k].max(axis=1), out_of_scope).tolist()
        failed, cached = np.isnan(logits.logits[:, 0]).tolist(), logits.cached.tolist()
        chance, said, added = (_rounded(values) for values in (p, words, context / manifest.temperature))
        responses: list[PredictResponse | Exception] = []
        for i, query in enumerate(queries):
            if failed[i]:
                responses.append(_failure(logits, i))
                continue
            columns, user = order[i][: query.top_k], features.users[i]
            top = [RankedProduct(labels[c], chance[i][c]) for c in columns]
            responses.append(
                PredictResponse(
                    request_id=query.request_id,
                    product=top[0].product,
                    confidence=top[0].confidence,
                    action=self._action(top[0].product, routes[i]),
                    top=top,
                    evidence=Evidence(
                        {labels[c]: said[i][c] for c in columns}, {labels[c]: added[i][c] for c in columns}
                    ),
                    features=ServedFeatures(user.recent_screens, user.product_usage_60d),
                    cached=cached[i],
                    degraded=features.degraded,
                    model_version=manifest.version,
                    preprocessing=manifest.fingerprint,
                )
            )
        return responses

    def _action(self, product: str, route: bool) -> Action:
        if route:
            return Action("route", self.desks.get(product, product))
        return Action("general_queue", GENERAL_QUEUE)


def _rounded(values: Floats) -> list[list[float]]:
    """To four decimals, which is what a client sees; as doubles, since a rounded float32 shows more."""
    rounded: list[list[float]] = values.astype(np.float64).round(4).tolist()
    return rounded


def _failure(logits: LogitBatch, row: int) -> DependencyError | DeadlinePassed:
    """Why a message has no logits."""
    if row in logits.late:
        return DeadlinePassed(TOO_SLOW)
    return DependencyError(logits.failure or "classifier: no answer")
