"""The service by hand gives the graph's answers; the offline check finds those that are not."""

import gc
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from deployments.stages import GC_THRESHOLDS
from features import demo
from features.schema import UserFeatures
from features.store import FeatureStore
from loadtests.baseline.app import Lru, Service, application, build
from loadtests.check import Offline, Verdict
from models.bundle import Bundle
from tests.unit.plain_graph import Service as Graph
from tests.unit.plain_graph import answered

DESKS = {"checking_account": "accounts"}
TEXTS = ("my card got eaten by the cash machine", "it got declined again", "what is the weather", "pix")
USAGE = demo.usage(9)


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline({user: UserFeatures((), usage) for user, usage in USAGE.items()}, DESKS)


@pytest.fixture(params=["thread", "inline"])
async def by_hand(request: pytest.FixtureRequest, bundle: Bundle, redis: Redis) -> httpx.AsyncClient:
    await demo.seed(FeatureStore(redis), 9)
    service = Service(bundle, FeatureStore(redis), DESKS, cache_entries=2, inline=request.param == "inline")
    return httpx.AsyncClient(transport=httpx.ASGITransport(application(service)), base_url="http://by-hand")


async def predict(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/predict", json=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def rows(requests: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[tuple[str, int, bytes]]:
    return [(json.dumps(q), 200, json.dumps(a).encode()) for q, a in zip(requests, answers, strict=True)]


async def test_answers_are_those_of_the_graph(by_hand: httpx.AsyncClient, at: Graph) -> None:
    await predict(by_hand, user_id="u1", text="the store's run is learnt by the first read")
    for text in TEXTS:
        request = {"user_id": "u1", "text": text, "request_id": "r", "top_k": 4}
        theirs = answered(await at.predict(**request))
        ours = await predict(by_hand, **request)
        assert ours["features"] == {"recent_screens": [], "product_usage_60d": USAGE["u1"]}
        assert set(ours) == set(theirs.__struct_fields__)
        assert ours["top"] == [{"product": c.product, "confidence": c.confidence} for c in theirs.top]
        assert ours["evidence"] == {"text": theirs.evidence.text, "context": theirs.evidence.context}
        assert ours["action"]["type"] == theirs.action.type
        assert (ours["confidence"], ours["model_version"]) == (theirs.confidence, theirs.model_version)


async def test_every_answer_passes_the_check(by_hand: httpx.AsyncClient, offline: Offline) -> None:
    requests = [{"user_id": f"u{i}", "text": text} for i in range(1, 10) for text in TEXTS]
    answers = [await predict(by_hand, **request) for request in requests]
    verdict = offline.check(rows(requests, answers))
    assert (verdict.checked, verdict.mismatches, verdict.degraded) == (36, 0, 0), verdict.examples


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"product": "loans"}, "says loans, offline checking_account"),
        ({"product": "nonsense"}, "unknown product"),
        ({"confidence": 0.5}, "says 0.5, offline"),
        ({"action": {"type": "route", "desk": "cards"}}, "does {'type': 'route', 'desk': 'cards'}, offline"),
        ({"action": {"type": "general_queue", "desk": "general"}}, "does {'type': 'general_queue',"),
        ({"features": {"recent_screens": [], "product_usage_60d": {}}}, "has features"),
    ],
)
async def test_a_wrong_answer_is_found(
    by_hand: httpx.AsyncClient, offline: Offline, change: dict[str, Any], reason: str
) -> None:
    request = {"user_id": "u1", "text": TEXTS[0]}
    verdict = offline.check(rows([request], [await predict(by_hand, **request) | change]))
    assert verdict.mismatches == 1
    assert reason in verdict.examples[0]


async def test_an_answer_without_features_is_right_and_degraded(
    bundle: Bundle, dead_redis: Redis, offline: Offline
) -> None:
    service = application(Service(bundle, FeatureStore(dead_redis), DESKS, 0))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://by-hand")
    request = {"user_id": "u1", "text": TEXTS[0]}
    verdict = offline.check(rows([request], [await predict(client, **request)]))
    assert (verdict.mismatches, verdict.degraded) == (0, 1)


def test_refused_and_lost_requests_are_counted(offline: Offline) -> None:
    verdict = Verdict(checked=2)
    verdict.add(offline.check([("{}", 503, b"{}"), ("{}", 0, b"")]))
    assert (verdict.checked, verdict.refused) == (2, 2)


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
def test_garbage_is_collected_as_often_as_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    build()
    assert gc.get_threshold() == GC_THRESHOLDS


async def test_known_texts_are_not_classified_again(by_hand: httpx.AsyncClient) -> None:
    cached = [(await predict(by_hand, user_id="u1", text=text))["cached"] for text in ("a", "b", "a", "c", "b", "a")]
    assert cached == [False, False, True, False, False, False]


def test_the_cache_is_bounded(bundle: Bundle) -> None:
    cache, logits = Lru(2), bundle.classifier()(bundle.preprocessor.tokens(["hi"]))
    for text in "abc":
        cache.put(text, logits)
    assert (len(cache), cache.get("a"), cache.get("c") is logits) == (2, None, True)


@pytest.mark.parametrize("change", [{"text": ""}, {"text": "x" * 4001}, {"user_id": 7}, {"colour": 1}, {"top_k": 0}])
async def test_bad_input_is_refused(by_hand: httpx.AsyncClient, change: dict[str, Any]) -> None:
    answer = await by_hand.post("/v1/predict", json={"user_id": "u1", "text": "hi", **change})
    assert answer.status_code == 422
