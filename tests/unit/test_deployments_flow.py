import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from deployments.flow import Answer, Flow
from deployments.protocol import (
    SOURCES,
    Action,
    DependencyError,
    FeatureBatch,
    LogitBatch,
    PredictResponse,
    Query,
    TokenBatch,
)
from features.store import FeatureStore
from models.bundle import PARTS, Bundle, write_bundle
from models.classifier import TextClassifier
from models.context import probabilities
from tests.unit.bundle_copies import variant
from tests.unit.plain_graph import STAGES, classify_stage, flow

TEXTS = ["my card was declined at the shop", "I want to raise my loan", "hello there", "where is my transfer?"]


def queries(*texts: str, user: str = "ann", top_k: int = 3) -> list[Query]:
    return [Query(f"r{i}", user, text, top_k) for i, text in enumerate(texts)]


async def responses(way: Flow, asked: Sequence[Query], bundle: Bundle) -> list[PredictResponse]:
    answers = await way.answer(asked, bundle)
    assert all(isinstance(answer, Answer) for answer in answers), answers
    return [answer.response for answer in answers if isinstance(answer, Answer)]


def decisive(bundle: Bundle, folder: Path, confidence: float, out_of_scope: float) -> Bundle:
    """The same model with other thresholds."""
    manifest = bundle.manifest
    return write_bundle(
        folder,
        {name: bundle.path / name for name in PARTS},
        labels=manifest.labels,
        out_of_scope=manifest.out_of_scope,
        preprocessor=bundle.preprocessor,
        temperature=manifest.temperature,
        confidence_threshold=confidence,
        out_of_scope_threshold=out_of_scope,
        training={},
    )


@pytest.fixture
def way(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> Flow:
    return flow(bundle, classify_stage(bundle, classifier), redis)


async def test_answers_come_in_order_and_say_what_the_model_says(
    way: Flow, bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    labels = bundle.manifest.labels
    store = FeatureStore(redis)
    await store.write_usage("r1", {"bob": {labels[2]: 40}})
    await store.publish_run("r1")
    asked = [
        Query(f"r{i}", user, text, 2) for i, (text, user) in enumerate(zip(TEXTS, ["ann", "bob"] * 2, strict=True))
    ]
    text_logits = classifier(bundle.preprocessor.tokens(TEXTS))
    context = bundle.context.logits(
        [bundle.preprocessor.context((), {labels[2]: 40} if query.user_id == "bob" else {}) for query in asked]
    )
    expected = probabilities(text_logits, context, bundle.manifest.temperature)[:, : len(labels)]
    for i, response in enumerate(await responses(way, asked, bundle)):
        best = np.argsort(-expected[i], kind="stable")[:2]
        assert response.request_id == f"r{i}"
        assert [candidate.product for candidate in response.top] == [labels[c] for c in best]
        assert [c.confidence for c in response.top] == pytest.approx(expected[i][best].tolist(), abs=1e-4)
        assert (response.product, response.confidence) == (response.top[0].product, response.top[0].confidence)
        assert list(response.evidence.text) == list(response.evidence.context) == [labels[c] for c in best]
        assert response.features.product_usage_60d == ({labels[2]: 40} if i % 2 else {})
        assert (response.model_version, response.preprocessing) == (bundle.version, bundle.manifest.fingerprint)
        assert not response.cached
        assert not response.degraded


async def test_context_is_evidence_and_none_is_zero(way: Flow, bundle: Bundle, redis: Redis) -> None:
    labels = bundle.manifest.labels
    [without] = await responses(way, queries(TEXTS[2], top_k=100), bundle)
    store = FeatureStore(redis)
    await store.write_usage("r1", {"ann": {labels[0]: 50}})
    await store.publish_run("r1")
    [with_usage] = await responses(way, queries(TEXTS[2], top_k=100), bundle)
    assert set(without.evidence.context) == set(labels), "top is as long as there are labels"
    assert set(without.evidence.context.values()) == {0.0}
    assert with_usage.evidence.context[labels[0]] > 0
    assert with_usage.cached, "only the words are cached"
    assert with_usage.evidence.text == without.evidence.text
    confidence = [{c.product: c.confidence for c in r.top}[labels[0]] for r in (without, with_usage)]
    assert confidence[1] > confidence[0]


@pytest.mark.parametrize(
    ("confidence", "out_of_scope", "routed"), [(0.0, 1.0, True), (1.0, 1.0, False), (0.0, 0.0, False)]
)
async def test_only_sure_answers_about_products_are_routed(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path,
    confidence: float, out_of_scope: float, routed: bool,
) -> None:  # fmt: skip
    other = decisive(bundle, tmp_path, confidence, out_of_scope)
    stage = classify_stage(other, classifier)
    [first, *_] = await responses(flow(other, stage, redis), queries(*TEXTS), other)
    products = set()
    for response in await responses(flow(other, stage, redis, {first.product: "front desk"}), queries(*TEXTS), other):
        products.add(response.product)
        desk = "front desk" if response.product == first.product else response.product
        assert response.action == (Action("route", desk) if routed else Action("general_queue", "general"))
    assert len(products) > 1, "a desk of another name and one of the product's own"


@pytest.mark.parametrize(("more", "action"), [(0.0, "route"), (1e-6, "general_queue")])
async def test_an_answer_that_is_just_sure_enough_is_routed(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path, more: float, action: str
) -> None:
    words = classifier(bundle.preprocessor.tokens(TEXTS[:1]))
    context = bundle.context.logits([bundle.preprocessor.context((), {})])
    p = probabilities(words, context, bundle.manifest.temperature)[0, : len(bundle.manifest.labels)]
    other = Bundle(variant(bundle, tmp_path, confidence_threshold=float(p.max()) + more, out_of_scope_threshold=1.0))
    [response] = await responses(flow(other, classify_stage(other, classifier), redis), queries(TEXTS[0]), other)
    assert response.action.type == action


async def test_an_answer_without_the_store_is_degraded_and_leaves_no_trace(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, dead_redis: Redis
) -> None:
    broken = flow(bundle, classify_stage(bundle, classifier), dead_redis)
    [response] = await responses(broken, queries(TEXTS[0]), bundle)
    assert tuple(response.degraded) == SOURCES
    healthy = replace(broken, gather=flow(bundle, classify_stage(bundle, classifier), redis).gather)
    [again] = await responses(healthy, queries(TEXTS[0]), bundle)
    assert again.cached
    assert not again.degraded


async def test_an_answer_without_the_gather_stage_is_degraded_too(way: Flow, bundle: Bundle) -> None:
    async def dead(users: list[str]) -> FeatureBatch:
        raise DependencyError("FeatureGatherer: ActorDiedError")

    [response] = await responses(Flow(dead, way.preprocess, way.classify, {}), queries(TEXTS[0]), bundle)
    assert tuple(response.degraded) == SOURCES


async def test_a_gather_stage_that_hangs_is_not_waited_for(way: Flow, bundle: Bundle) -> None:
    async def hung(users: list[str]) -> FeatureBatch:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    impatient = Flow(hung, way.preprocess, way.classify, {}, gather_timeout_s=0.01)
    [response] = await responses(impatient, queries(TEXTS[0]), bundle)
    assert tuple(response.degraded) == SOURCES


async def test_without_the_classifier_only_what_is_cached_is_answered(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stage, alive = classify_stage(bundle, classifier), asyncio.Event()
    alive.set()

    async def classify(batch: TokenBatch) -> LogitBatch:
        if not alive.is_set():
            raise DependencyError("Classifier: ActorDiedError")
        return await stage(batch)

    way = flow(bundle, classify, redis)
    [before] = await responses(way, queries(TEXTS[0]), bundle)
    alive.clear()
    unknown, known = await way.answer(queries(TEXTS[1], TEXTS[0]), bundle)
    assert isinstance(unknown, DependencyError)
    assert str(unknown) == "Classifier: ActorDiedError"
    assert isinstance(known, Answer)
    assert known.response.cached
    assert known.response.top == before.top
    for answer in await way.answer(queries(TEXTS[1], TEXTS[2]), bundle):
        assert isinstance(answer, DependencyError)
        assert str(answer) == "Classifier: ActorDiedError"


async def test_every_stage_is_timed(way: Flow, bundle: Bundle) -> None:
    [answer] = await way.answer(queries(TEXTS[0]), bundle)
    assert isinstance(answer, Answer)
    assert set(answer.milliseconds) == STAGES - {"queue", "total"}
    [again] = await way.answer(queries(TEXTS[0]), bundle)
    assert isinstance(again, Answer)
    assert again.milliseconds["classify"] == 0.0
