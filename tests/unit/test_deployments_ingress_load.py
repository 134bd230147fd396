"""What a client hears when the service is busy, slow or lacks a part."""

import asyncio

import pytest
from redis.asyncio import Redis

from deployments.cache import PredictionCache
from deployments.classify import PreprocessStage
from deployments.errors import ApiError
from deployments.flow import Flow
from deployments.ingress import Ingress, IngressConfig
from deployments.protocol import DependencyError, FeatureBatch, LogitBatch, Query, TokenBatch
from features.store import connect
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.gate import Gate
from tests.unit.plain_graph import answered, classify_stage, refused, service
from tests.unit.virtual_time import run

Gated = Gate[TokenBatch, LogitBatch]


async def no_features(users: list[str]) -> FeatureBatch:
    return FeatureBatch.missing(len(users))


@pytest.mark.parametrize("while_serving", [False, True])
async def test_a_full_queue_gets_429_and_when_to_come_back(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, while_serving: bool
) -> None:
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    limits = IngressConfig(max_in_flight=1, max_batch=1, max_queue=1, deadline_ms=600_000)
    at = service(bundle, classify, redis, None if while_serving else limits)
    if while_serving:
        at.ingress.configure(limits)
    travelling = at.begin(user_id="ann", text="one")
    held = await classify.next()
    two = [at.begin(user_id="ann", text="two") for _ in range(2)]
    [shed], [waiting] = await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)
    response = await shed
    assert refused(response, 429).code == "overloaded"
    assert response.headers["retry-after"] == "1"
    held.answer.set_result(await stage(held.argument))
    held = await classify.next()
    held.answer.set_result(await stage(held.argument))
    answered(await travelling)
    answered(await waiting)


async def test_new_limits_hold_for_those_who_wait(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> None:
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    at = service(bundle, classify, redis)
    at.ingress.configure(IngressConfig(max_in_flight=1, max_batch=2, max_queue=3, deadline_ms=600_000))
    tasks = {at.begin(user_id="ann", text="travelling")}
    held = await classify.next()
    arriving = [at.begin(user_id="ann", text=text) for text in ("one", "two", "three", "four")]
    [shed], waiting = await asyncio.wait(arriving, return_when=asyncio.FIRST_COMPLETED)
    refused(await shed, 429)
    assert at.ingress.batcher.levels() == {"queue_length": 3, "batches_in_flight": 1}
    for size in (2, 1):
        held.answer.set_result(await stage(held.argument))
        held = await classify.next()
        assert len(held.argument.lengths) == size
    held.answer.set_result(await stage(held.argument))
    for response in await asyncio.gather(*tasks, *waiting):
        answered(response)


async def test_a_late_answer_is_504(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> None:
    stage, awake = classify_stage(bundle, classifier), asyncio.Event()

    async def classify(batch: TokenBatch) -> LogitBatch:
        await awake.wait()
        return await stage(batch)

    at = service(bundle, classify, redis, IngressConfig(deadline_ms=30))
    error = refused(await at.predict(user_id="ann", text="hello"), 504)
    assert (error.code, error.message) == ("deadline_exceeded", "no answer within 30 ms")
    awake.set()
    at.ingress.configure(IngressConfig(deadline_ms=600_000))
    answered(await at.predict(user_id="ann", text="hello"))


async def test_a_request_that_waits_too_long_costs_no_inference(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    at = service(bundle, classify, redis, IngressConfig(max_in_flight=1, deadline_ms=600_000))
    travelling = at.begin(user_id="ann", text="one")
    held = await classify.next()
    at.ingress.configure(IngressConfig(max_in_flight=1, deadline_ms=30))
    refused(await at.predict(user_id="ann", text="two"), 504)
    held.answer.set_result(await stage(held.argument))
    answered(await travelling)
    assert classify.empty
    assert at.ingress.batcher.items == 1


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (DependencyError("Classifier: ActorDiedError"), "Classifier: ActorDiedError"),
        (OSError("/secret/path"), "classifier: OSError"),
    ],
)
async def test_without_the_classifier_the_answer_is_503_and_says_no_secret(
    bundle: Bundle, redis: Redis, failure: Exception, message: str
) -> None:
    async def classify(batch: TokenBatch) -> LogitBatch:
        raise failure

    at = service(bundle, classify, redis)
    response = await at.predict(user_id="ann", text="hello")
    error = refused(response, 503)
    assert (error.code, error.message) == ("unavailable", message)
    assert response.headers["retry-after"] == "1"


def test_what_failed_beside_a_late_inference_is_503_and_the_service_no_longer_ready(bundle: Bundle) -> None:
    async def statuses() -> tuple[list[int], bool]:
        classify: Gated = Gate()
        preprocess = PreprocessStage({bundle.version: bundle.preprocessor}.__getitem__)
        preprocess.table.preload(bundle.version)
        way = Flow(no_features, preprocess, PredictionCache(classify), {})
        ingress = Ingress(way, bundle, connect("redis://127.0.0.1:1/0", 1.0))
        ingress.warm_up.ready = True
        before = asyncio.create_task(way.answer([Query("r0", "ann", "crashes", 3)], bundle))
        crashes = await classify.next()
        both = [asyncio.create_task(ingress.answer(Query(text, "ann", text, 3))) for text in ("crashes", "hangs")]
        await classify.next()
        crashes.answer.set_exception(OSError())
        await before
        errors = await asyncio.gather(*both, return_exceptions=True)
        return [error.status for error in errors if isinstance(error, ApiError)], ingress.warm_up.ready

    assert run(statuses()) == ([503, 504], False)


async def test_a_client_that_leaves_takes_no_other_along(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    at = service(bundle, classify, redis)
    leaves, stays = at.begin(user_id="ann", text="same"), at.begin(user_id="bob", text="same")
    held = await classify.next()
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    held.answer.set_result(await stage(held.argument))
    answered(await stays)
