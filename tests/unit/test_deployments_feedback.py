"""`POST /v1/feedback`: on the stream before it is acknowledged."""

from typing import Any, cast

import pytest
from redis.asyncio import Redis

from deployments.ingress import Ingress
from features.schema import FEEDBACK_STREAM
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import Service, classify_stage, refused, service

FEEDBACK, PATH = {"request_id": "r1", "product": "loans"}, "/v1/feedback"


async def test_feedback_is_on_the_stream(at: Service, redis: Redis) -> None:
    answer = await at.http.post(PATH, json=FEEDBACK)
    assert answer.status_code == 202
    ((entry_id, fields),) = cast(Any, await redis.xrange(FEEDBACK_STREAM))
    assert answer.json() == {"request_id": "r1", "stream_id": entry_id, "product_known": True}
    assert {name: fields[name] for name in FEEDBACK} == FEEDBACK
    assert fields["at"].endswith("Z")


async def test_a_new_product_is_welcome_and_named_as_new(at: Service, redis: Redis) -> None:
    answer = await at.http.post(PATH, json={"request_id": "r1", "product": "pet_insurance"})
    assert (answer.status_code, answer.json()["product_known"]) == (202, False)
    assert await redis.xlen(FEEDBACK_STREAM) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request_id": ""}, "request_id"),
        ({"product": 7}, "product"),
        ({"product": "x" * 129}, "product"),
        ({"product": " "}, "product"),
        ({"note": "x"}, "note"),
    ],
)
async def test_bad_feedback_is_refused_by_field(at: Service, redis: Redis, change: dict[str, Any], field: str) -> None:
    error = refused(await at.http.post(PATH, json=FEEDBACK | change), 422)
    assert error.field == field
    assert await redis.xlen(FEEDBACK_STREAM) == 0


async def test_a_missing_field_is_named(at: Service) -> None:
    assert refused(await at.http.post(PATH, json={"request_id": "r1"}), 422).field == "product"


async def test_nothing_is_acknowledged_without_redis(
    bundle: Bundle, classifier: TextClassifier, dead_redis: Redis
) -> None:
    broken = service(bundle, classify_stage(bundle, classifier), dead_redis)
    answer = await broken.http.post(PATH, json=FEEDBACK)
    assert refused(answer, 503).code == "unavailable"
    assert answer.headers["retry-after"] == "1"


async def test_abstentions_and_degraded_answers_are_counted(
    bundle: Bundle, classifier: TextClassifier, dead_redis: Redis
) -> None:
    broken = service(bundle, classify_stage(bundle, classifier), dead_redis)
    answers = [await broken.predict(user_id="ann", text=text) for text in ("what is the capital of France?", "my card")]
    queued = sum(answer.json()["action"]["type"] == "general_queue" for answer in answers)
    assert isinstance(broken.ingress, Ingress)
    assert broken.ingress.counts().items() >= {"abstained_total": queued, "degraded_total": 2}.items()
