"""API keys: who is let in, where none is asked for, and that no error shows a key."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from deployments.access import Access, digests
from deployments.errors import ApiError
from deployments.ingress import Ingress
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import MESSAGE, PATIENT, SCREEN, Service, answered, classify_stage, client_of, flow, refused

KEY, NEXT = "0123456789abcdef", "the-next-key_of~the+bank/2027=="
CLOSED: list[tuple[str, str, Mapping[str, Any] | None]] = [
    ("POST", "/v1/predict", MESSAGE),
    ("POST", "/v1/events/screens", SCREEN),
    ("POST", "/v1/feedback", {"request_id": "r", "product": "loans"}),
    ("GET", "/v1/models", None),
    ("GET", "/v2", None),
    ("POST", "/v2/models/production/infer", {"inputs": []}),
    ("GET", "/nowhere", None),
]


@pytest.fixture
def guarded(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> Service:
    """A service that knows two keys."""
    stages = flow(bundle, classify_stage(bundle, classifier), redis)
    access = Access(digests(f"{KEY}, {NEXT}"))
    return client_of(Ingress(stages, bundle, redis, PATIENT, publish_timeout_s=60.0, access=access))


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {key}"}


@pytest.mark.parametrize(("method", "path", "body"), CLOSED)
async def test_without_a_key_nothing_is_answered(
    guarded: Service, method: str, path: str, body: Mapping[str, Any] | None
) -> None:
    for headers in ({}, bearer(KEY[:-1]), bearer(KEY, "Basic"), {"authorization": KEY}, bearer(f"{KEY},{NEXT}")):
        response = await guarded.http.request(method, path, json=body, headers=headers)
        assert refused(response, 401).code == "unauthorized"
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert KEY[:-1] not in response.text
    with_key = await guarded.http.request(method, path, json=body, headers=bearer(KEY))
    assert with_key.status_code != 401


@pytest.mark.parametrize("headers", [bearer(KEY), bearer(NEXT), bearer(f" {KEY} ", "bearer")])
async def test_each_key_opens(guarded: Service, headers: dict[str, str]) -> None:
    answered(await guarded.http.post("/v1/predict", json=MESSAGE, headers=headers))
    assert (await guarded.http.get("/v1/models", headers=headers)).status_code == 200


async def test_two_authorizations_are_none(guarded: Service) -> None:
    headers = httpx.Headers([("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")])
    refused(await guarded.http.post("/v1/predict", json=MESSAGE, headers=headers), 401)


@pytest.mark.parametrize("path", ["/healthz/live", "/v2/health/live", "/docs", "/openapi.json"])
async def test_probes_and_documentation_need_none(guarded: Service, path: str) -> None:
    assert (await guarded.http.get(path)).status_code == 200


async def test_where_no_key_is_set_none_is_needed(at: Service) -> None:
    for headers in ({}, bearer("whatever")):
        answered(await at.http.post("/v1/predict", json=MESSAGE, headers=headers))


@given(st.lists(st.text("abcXYZ019._~+/=-", min_size=16), min_size=1))
def test_every_listed_key_opens_and_no_other(keys: list[str]) -> None:
    access = Access(digests(" , ".join(keys)))
    for key in keys:
        access.require({"headers": [(b"authorization", b"Bearer " + key.encode())]})
        with pytest.raises(ApiError):
            access.require({"headers": [(b"authorization", b"Bearer " + key.encode() + b"!")]})


@given(st.binary())
def test_no_header_is_a_defect(value: bytes) -> None:
    with pytest.raises(ApiError):
        Access(digests(KEY)).require({"headers": [(b"authorization", value)]})


@pytest.mark.parametrize(
    ("keys", "which"),
    [("", "key 1 of 1"), (f"{KEY},", "key 2 of 2"), (f"short,{KEY}", "key 1 of 2"), (f"{KEY} {NEXT}", "key 1 of 1")],
)
def test_what_is_no_key_is_refused_without_showing_it(keys: str, which: str) -> None:
    with pytest.raises(ValueError, match=f"{which}: expected 16 or more letters, digits or") as refusal:
        digests(keys)
    assert "short" not in str(refusal.value)
    assert KEY not in str(refusal.value)
