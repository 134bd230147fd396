"""A message finds its desk, over HTTP, through the real graph."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from redis import Redis

from features.schema import SCREEN_STREAM
from models.data import Example
from models.evaluate import score
from models.registry import Registry
from tests.serve.conftest import Service
from tests.serve.polling import page, until

AMBIGUOUS = "it got declined again"


def predict(service: Service, user_id: str, text: str, **more: Any) -> dict[str, Any]:
    answer = service.http.post("/v1/predict", json={"user_id": user_id, "text": text, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def see(service: Service, user_id: str, *screens: str) -> None:
    """Post screens and wait until a prediction sees them all."""
    for screen in screens:
        answer = service.http.post("/v1/events/screens", json={"user_id": user_id, "screen": screen})
        assert answer.status_code == 202, answer.text
    until(
        lambda: predict(service, user_id, AMBIGUOUS)["features"]["recent_screens"],
        lambda seen: seen[-len(screens) :] == list(screens),
    )


def test_a_clear_message_is_routed_with_timings_of_every_stage(service: Service) -> None:
    answer = service.http.post(
        "/v1/predict", json={"user_id": "u1", "text": "my card got eaten by the cash machine", "request_id": "r-1"}
    )
    body = answer.json()
    assert (body["request_id"], body["product"], body["degraded"]) == ("r-1", "checking_account", [])
    assert body["action"] == {"type": "route", "desk": "accounts"}
    stages = {part.split(";")[0] for part in answer.headers["server-timing"].split(", ")}
    assert stages >= {"queue", "gather", "preprocess", "cache", "classify", "fuse", "decide", "total"}


def test_requests_are_spans_of_their_callers_traces(service: Service) -> None:
    """From the second prediction on, Ray does not see them."""
    traces = [f"4bf92f3577b34da6a3ce929d0e0e473{number}" for number in range(3)]
    for trace in traces:
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        answer = service.http.post("/v1/predict", json={"user_id": "u1", "text": "card lost"}, headers=headers)
        assert answer.status_code == 200
    for trace in traces:
        spans = until(partial(service.collector.spans, trace), bool)
        assert [span.name for span in spans if span.kind == Span.SPAN_KIND_SERVER] == ["POST /v1/predict"]
        assert {"gather", "cache", "decide"} < {span.name for span in spans}


def test_screens_settle_an_ambiguous_message(service: Service) -> None:
    see(service, "anna", "home", "card_limit")
    see(service, "ben", "transfer_limits", "transfer_send")
    assert predict(service, "anna", AMBIGUOUS)["product"] == "credit_card"
    assert predict(service, "ben", AMBIGUOUS)["product"] == "transfers"


def test_a_cached_text_gets_a_fresh_answer(service: Service) -> None:
    text = "why was it refused this time"
    see(service, "cleo", "card_home", "card_limit")
    first, second = (predict(service, "cleo", text) for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    assert first | {"request_id": "", "cached": True} == second | {"request_id": ""}
    see(service, "cleo", "loan_simulator", "loan_contract", "loan_installments")
    third = predict(service, "cleo", text)
    assert third["cached"] is True
    assert third["product"] == "loans"


def test_other_services_publish_to_the_stream_directly(service: Service) -> None:
    at = datetime.now(UTC).isoformat()
    with Redis.from_url(service.redis.url) as redis:
        redis.xadd(SCREEN_STREAM, {"event_id": "e1", "user_id": "dora", "screen": "insurance_claim", "at": at})
    until(
        lambda: predict(service, "dora", "any news?")["features"]["recent_screens"],
        lambda seen: seen == ["insurance_claim"],
    )


def test_seeded_usage_reaches_the_answer(service: Service) -> None:
    assert predict(service, "u1", "hello there")["features"]["product_usage_60d"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b'{"user_id":"u1","text":"\xff"}', 400, None),
        (b'{"user_id":"u1"}', 422, "text"),
        (b'{"user_id":"u1","text":""}', 422, "text"),
        (b'{"user_id":"u1","text":"hi","colour":1}', 422, "colour"),
        (b'{"user_id":7,"text":"hi"}', 422, "user_id"),
        (json.dumps({"user_id": "u1", "text": "x" * 4001}).encode(), 422, "text"),
        (b'{"user_id":"u1","text":"' + b"x" * 70_000 + b'"}', 413, None),
    ],
)
def test_a_clients_mistake_is_named(service: Service, body: bytes, status: int, field: str | None) -> None:
    answer = service.http.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"].get("field") == field


def test_concurrent_answers_equal_the_offline_ones(service: Service) -> None:
    """Batching and caching never mix up messages."""
    texts = [f"{text} {i % 7}" for i in range(40) for text in ("pix not received", "raise my limit", "boleto", "hi")]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: predict(service, f"nobody-{i}", texts[i], top_k=9), range(len(texts))))
    bundle = Registry().load("production")
    scores = score(bundle, bundle.classifier(), [Example(text, "loans") for text in texts])
    best = scores.text[:, : len(bundle.manifest.labels)].argmax(axis=1)
    assert [answer["product"] for answer in answers] == [bundle.manifest.labels[i] for i in best]


def test_metrics_show_cache_and_batches(service: Service) -> None:
    predict(service, "u2", "count me")
    predict(service, "u2", "count me")
    names = {"switchboard_cache_hits_total", "switchboard_batches_total"}
    text = until(lambda: page(service.metrics), lambda text: all(name in text for name in names))
    assert "count me" not in text


def test_metrics_show_requests_and_the_way_to_the_stages(service: Service) -> None:
    """Predictions pass Ray's own counting by, and batches its router; both are counted all the same."""
    predict(service, "u2", "count me")
    assert service.http.post("/v1/predict", json={"user_id": "u2"}).status_code == 422
    wanted = [
        r'switchboard_requests_total\{.*status="200".*\} [1-9]',
        r'switchboard_requests_total\{.*status="422".*\} [1-9]',
        r'switchboard_request_seconds_bucket_total\{.*le="\+Inf".*\} [1-9]',
        r'switchboard_stage_calls_total\{.*way="link".*\} [1-9]',
        r'switchboard_stage_calls_total\{.*way="here".*\} [1-9]',
        r'switchboard_stage_seconds_count_total\{.*stage="gather".*\} [1-9]',
        r"switchboard_cache_passed_total\{.*\} [1-9]",
    ]
    until(lambda: page(service.metrics), lambda text: all(re.search(line, text) for line in wanted))


def test_health_docs_and_models(service: Service) -> None:
    assert service.http.get("/healthz/live").json() == {"status": "live"}
    ready = service.http.get("/healthz/ready").json()
    models = service.http.get("/v1/models").json()["models"]
    assert ready["model_version"] == models[0]["version"] == Registry().load("production").version
    document = service.http.get("/openapi.json").json()
    assert "/v1/predict" in document["paths"]
    page = service.http.get("/docs").text
    assert service.http.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    assert "swagger-ui-bundle.js" in page


def test_unknown_paths_and_methods_have_the_error_format(service: Service) -> None:
    assert service.http.get("/nope").json()["error"]["code"] == "not_found"
    wrong = service.http.get("/v1/predict")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_a_client_that_gives_up_harms_nobody(service: Service) -> None:
    """Half of the clients hang up at once; the other half get their answers."""
    address = str(service.http.base_url)
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        tasks = [
            asyncio.ensure_future(client.post("/v1/predict", json={"user_id": "e", "text": f"impatient {i}"}))
            for i in range(40)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(a, httpx.Response) and a.status_code == 200 for a in answers[1::2])
