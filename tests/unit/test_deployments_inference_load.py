"""Messages of one inference stand or fall together, and take the way of all messages."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from deployments.ingress import Ingress, IngressConfig
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from deployments.served import ServedBatch
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.gate import Gate
from tests.unit.plain_graph import PATIENT, classify_stage, flow, refused, service
from tests.unit.tensors import INFER, columns, infer, messages

Gated = Gate[TokenBatch, LogitBatch]


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop would log, such as exceptions that nobody retrieved; none at the end of the test."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
    yield said
    gc.collect()
    assert said == []


async def test_messages_travel_together_and_are_counted(
    bundle: Bundle, classifier: TextClassifier, dead_redis: Redis
) -> None:
    at = service(bundle, classify_stage(bundle, classifier), dead_redis)
    answer = columns(await infer(at, messages(*(f"message {i}" for i in range(40)))))
    assert set(answer["degraded"]) == {"recent_screens,product_usage_60d"}
    assert (at.ingress.batcher.batches, at.ingress.batcher.items) == (1, 40)
    general = answer["action"].count("general_queue")
    assert at.ingress.counts().items() >= {"abstained_total": general, "degraded_total": 40}.items()


async def test_equal_texts_are_classified_once(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> None:
    seen: list[int] = []
    stage = classify_stage(bundle, classifier)

    async def classify(batch: TokenBatch) -> LogitBatch:
        seen.append(len(batch.lengths))
        return await stage(batch)

    at = service(bundle, classify, redis)
    assert len(set(columns(await infer(at, messages(*["the same"] * 8)))["product"])) == 1
    assert seen == [1]
    assert columns(await infer(at, messages("the same")))["cached"] == [True]


async def test_a_queue_without_room_for_all_takes_none(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, complaints: list[dict[str, Any]]
) -> None:
    classify: Gated = Gate()
    at = service(bundle, classify, redis, IngressConfig(max_queue=4, max_in_flight=1, deadline_ms=600_000))
    first = at.begin(user_id="bob", text="one")
    held = await classify.next()
    second = at.begin(user_id="bob", text="one")
    while not len(at.ingress.batcher):
        await asyncio.to_thread(lambda: None)
    response = await infer(at, messages("one", "two", "three", "four"))
    error = refused(response, 429)
    assert (error.code, response.headers["retry-after"]) == ("overloaded", "1")
    assert (at.ingress.batcher.items, at.ingress.batcher.shed, len(at.ingress.batcher)) == (1, 4, 1)
    held.answer.set_result(await classify_stage(bundle, classifier)(held.argument))
    assert [response.status_code for response in await asyncio.gather(first, second)] == [200, 200]


async def test_more_messages_than_a_queue_ever_takes_are_not_to_be_sent_again(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    at = service(bundle, classify_stage(bundle, classifier), redis, IngressConfig(max_queue=3))
    response = await infer(at, messages("one", "two", "three", "four"))
    error = refused(response, 422)
    assert (error.code, error.field, error.message) == (
        "invalid_field", "inputs", "4 messages, and this service takes at most 3 at once (max_queue): send fewer"
    )  # fmt: skip
    assert "retry-after" not in response.headers
    assert (await infer(at, messages("one", "two", "three"))).status_code == 200


async def test_a_late_answer_is_504_for_all(bundle: Bundle, redis: Redis, complaints: list[dict[str, Any]]) -> None:
    classify: Gated = Gate()
    at = service(bundle, classify, redis, IngressConfig(deadline_ms=30, max_batch=2, max_in_flight=1))
    error = refused(await infer(at, messages("one", "two", "three")), 504)
    assert (error.code, error.message) == ("deadline_exceeded", "no answer within 30 ms")
    assert len(at.ingress.batcher) == 0, "nobody waits any more"


async def test_without_the_classifier_it_is_503_for_all(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, complaints: list[dict[str, Any]]
) -> None:
    """And the messages that still wait are given up."""
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    at = service(bundle, classify, redis, IngressConfig(max_batch=1, max_in_flight=1, deadline_ms=600_000))
    inference = asyncio.ensure_future(infer(at, messages("one", "two", "three", "four")))
    held = await classify.next()
    held.answer.set_result(await stage(held.argument))
    (await classify.next()).answer.set_exception(DependencyError("Classifier: ActorDiedError"))
    third = await classify.next()
    response = await inference
    error = refused(response, 503)
    assert (error.code, error.message) == ("unavailable", "Classifier: ActorDiedError")
    assert response.headers["retry-after"] == "1"
    assert len(at.ingress.batcher) == 0
    third.answer.set_exception(DependencyError("Classifier: ActorDiedError"))
    assert at.ingress.batcher.items == 3


async def test_a_client_that_leaves_leaves_nothing_behind(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, complaints: list[dict[str, Any]]
) -> None:
    classify: Gated = Gate()
    stage = classify_stage(bundle, classifier)
    at = service(bundle, classify, redis, IngressConfig(max_batch=1, max_in_flight=1, deadline_ms=600_000))
    leaves = asyncio.ensure_future(infer(at, messages("one", "two", "three")))
    held = await classify.next()
    stays = at.begin(user_id="bob", text="four")
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    held.answer.set_result(await stage(held.argument))
    held = await classify.next()
    held.answer.set_result(await stage(held.argument))
    assert (await stays).status_code == 200
    assert at.ingress.batcher.items == 2


async def test_a_defect_is_not_hidden(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, complaints: list[dict[str, Any]]
) -> None:
    def defective(batch: ServedBatch) -> None:
        raise ZeroDivisionError("secret")

    stages = replace(flow(bundle, classify_stage(bundle, classifier), redis), record=defective)
    transport = httpx.ASGITransport(Ingress(stages, bundle, redis, PATIENT).app())
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        response = await client.post(INFER, json={"inputs": messages("one", "two")})
    assert refused(response, 500).code == "internal"
    assert b"secret" not in response.content
