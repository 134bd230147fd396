"""The graph of plain stages in one process, and an HTTP client for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
from redis.asyncio import Redis

from deployments.breaker import CircuitBreaker
from deployments.cache import PredictionCache
from deployments.classify import ClassifyStage, PreprocessStage
from deployments.flow import Flow
from deployments.gather import FeatureGatherer
from deployments.ingress import Ingress, IngressConfig
from deployments.protocol import ErrorBody, ErrorResponse, LogitBatch, PredictResponse, TokenBatch
from features.store import FeatureStore
from models.bundle import Bundle
from models.classifier import TextClassifier

PREDICT, SCREENS = "/v1/predict", "/v1/events/screens"
MESSAGE: dict[str, Any] = {"user_id": "ann", "text": "my card was declined"}
SCREEN: dict[str, Any] = {"user_id": "ann", "screen": "home"}
Classify = Callable[[TokenBatch], Awaitable[LogitBatch]]
PATIENT = IngressConfig(deadline_ms=600_000)
"""No machine is so slow that an answer comes too late."""
STAGES = {"queue", "gather", "preprocess", "cache", "classify", "inference", "fuse", "decide", "flow", "total"}


def classify_stage(bundle: Bundle, classifier: TextClassifier) -> ClassifyStage:
    return ClassifyStage({bundle.version: classifier}.__getitem__)


def flow(bundle: Bundle, classify: Classify, redis: Redis, desks: dict[str, str] | None = None) -> Flow:
    """The stages as `graph.py` connects them, all of them in this process."""
    return Flow(
        FeatureGatherer(FeatureStore(redis), 60.0, CircuitBreaker()),
        PreprocessStage({bundle.version: bundle.preprocessor}.__getitem__),
        PredictionCache(classify, timeout_s=60.0),
        desks or {},
        gather_timeout_s=60.0,
    )


@dataclass
class Service:
    """An ingress and a client that speaks HTTP to it, without a network."""

    ingress: Ingress
    http: httpx.AsyncClient

    async def predict(self, **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/predict", json=fields)

    def begin(self, **fields: Any) -> asyncio.Task[httpx.Response]:
        return asyncio.ensure_future(self.predict(**fields))


def service(bundle: Bundle, classify: Classify, redis: Redis, config: IngressConfig | None = None) -> Service:
    """A client raises what the application raises, so no defect hides behind a 500."""
    return client_of(Ingress(flow(bundle, classify, redis), bundle, redis, config or PATIENT, publish_timeout_s=60.0))


def client_of(ingress: Ingress) -> Service:
    """An ingress with a client of its own."""
    transport = httpx.ASGITransport(ingress.app())
    return Service(ingress, httpx.AsyncClient(transport=transport, base_url="http://switchboard"))


def answered(response: httpx.Response) -> PredictResponse:
    """The answer, every field of which is there and no other."""
    assert response.status_code == 200, response.text
    assert set(response.json()) == set(PredictResponse.__struct_fields__)
    return msgspec.json.decode(response.content, type=PredictResponse)


def refused(response: httpx.Response, status: int) -> ErrorBody:
    """The error, in the format that all errors have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = msgspec.json.decode(response.content, type=ErrorResponse)
    assert set(response.json()) == {"error"}
    return body.error
