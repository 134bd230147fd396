"""The HTTP interface: validation, deadlines, a bounded queue in front of the flow, and the small routes."""

import asyncio
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope

from deployments import openapi
from deployments.batching import DeadlinePassed, NaturalBatcher, QueueFull
from deployments.bodies import decode
from deployments.errors import ApiError, on_api_error, on_http_exception, on_unexpected
from deployments.flow import Answer, Flow
from deployments.hot_route import HotRoute
from deployments.identifiers import new_identifier
from deployments.protocol import DependencyError, PredictRequest, Query
from deployments.publisher import Publisher
from deployments.request_meter import RequestMeter
from models.bundle import Bundle

logger = logging.getLogger(__name__)
PREDICT = "/v1/predict"
WARM_UP = Query("warm-up", "warm-up", "hello, is this thing on", 1)


class BatchingConfig(BaseModel):
    """How requests travel together. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_in_flight: int = Field(default=2, ge=1)
    max_batch: int = Field(default=64, ge=1)
    max_queue: int = Field(default=2048, ge=1)
    deadline_ms: int = Field(default=2000, ge=1)


class Ingress:
    """Answers HTTP requests with a flow.

    Args:
        flow: the stages.
        bundle: the model that answers.
        redis: for publishing screen events and feedback.
        on_stop: runs once, after the last answer of a clean stop.
        model: the name or version that the bundle was asked for by.
        publish_timeout_s: for a screen event or a feedback to be written.
        warm: further stages to warm; those that an answer needs must have answered before the ingress is ready.
    """

    def __init__(
        self,
        flow: Flow,
        bundle: Bundle,
        redis: Redis,
        batching: BatchingConfig | None = None,
        on_stop: Callable[[], None] | None = None,
        warm: Flow | None = None,
        model: str = "production",
        publish_timeout_s: float = 1.0,
    ) -> None:
        self.batching = batching or BatchingConfig()
        self.ready = False
        self.abstained = self.degraded = 0
        self.requests = RequestMeter()
        self._flow, self._bundle, self._on_stop, self._model = flow, bundle, on_stop, model
        self._warm = [replace(warmed, record=None) for warmed in (warm, flow) if warmed is not None]
        self.batcher: NaturalBatcher[Query, Answer] = NaturalBatcher(
            self._answer,
            max_in_flight=self.batching.max_in_flight,
            max_batch=self.batching.max_batch,
            max_queue=self.batching.max_queue,
        )
        self._predict = msgspec.json.Decoder(PredictRequest)
        self._publisher = Publisher(redis, bundle.manifest.labels, publish_timeout_s)

    def configure(self, batching: BatchingConfig) -> None:
        """Change the batching limits while serving."""
        self.batching = batching
        self.batcher.max_in_flight = batching.max_in_flight
        self.batcher.max_batch = batching.max_batch
        self.batcher.max_queue = batching.max_queue

    async def warm_until_ready(self, pause_s: float = 0.5) -> None:
        """Warm up, again and again while a stage does not answer yet."""
        while not self.ready:
            try:
                await self.warm_up()
            except Exception as error:
                logger.warning("warm-up: %r; next try in %.1f s", error, pause_s)
                await asyncio.sleep(pause_s)

    async def warm_up(self) -> None:
        """Send a batch through every stage, wherever it may run; ready when it comes back.

        Raises:
            DependencyError: the classifier did not answer.
        """
        for flow in self._warm:
            for answer in await flow.answer([WARM_UP] * 2, self._bundle):
                if isinstance(answer, Exception):
                    raise answer
        self.ready = True

    def app(self, found: Callable[[str, ASGIApp], None] | None = None) -> ASGIApp:
        """The ASGI application; for `found` see `HotRoute`."""
        return HotRoute(PREDICT, self.predict, self.other_routes(), self.requests, found)

    def other_routes(self) -> Starlette:
        """Everything but predictions."""
        routes = [
            Route("/v1/events/screens", self._publisher.screens, methods=["POST"]),
            Route("/v1/feedback", self._publisher.feedback, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/healthz/live", self.live),
            Route("/healthz/ready", self.readiness),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
            Mount("/docs/assets", StaticFiles(directory=_swagger_assets())),
        ]
        handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
            ApiError: on_api_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        }
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        if self._on_stop is not None:
            await asyncio.to_thread(self._on_stop)

    def counts(self) -> dict[str, float]:
        return {"abstained_total": self.abstained, "degraded_total": self.degraded}

    async def predict(self, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        """`POST /v1/predict`: the body of the answer, and where its time went."""
        arrived = time.perf_counter()
        body = await decode(scope, receive, self._predict)
        _require_visible(body.text)
        query = Query(body.request_id or new_identifier(), body.user_id, body.text, body.top_k)
        try:
            answer = await self.batcher.submit(query, self.batching.deadline_ms / 1000)
        except QueueFull as error:
            raise ApiError(429, "overloaded", str(error), retry_after_s=1) from None
        except DeadlinePassed as error:
            raise ApiError(504, "deadline_exceeded", str(error)) from None
        except DependencyError as error:
            raise ApiError(503, "unavailable", str(error), retry_after_s=1) from None
        self.abstained += answer.response.action.type == "general_queue"
        self.degraded += bool(answer.response.degraded)
        total = (time.perf_counter() - arrived) * 1000
        queue = max(0.0, total - answer.milliseconds["flow"])
        timing = f"queue;dur={queue:.2f}, {answer.server_timing}, total;dur={total:.2f}"
        return msgspec.json.encode(answer.response), timing.encode()

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`"""
        manifest = self._bundle.manifest
        shown = manifest.model_dump(mode="json", include={"version", "labels", "fingerprint", "metrics"})
        return JSONResponse({"models": [{"name": self._model, **shown}]})

    async def live(self, request: Request) -> Response:
        """`GET /healthz/live`"""
        return JSONResponse({"status": "live"})

    async def readiness(self, request: Request) -> Response:
        """`GET /healthz/ready`"""
        if not self.ready:
            raise ApiError(503, "not_ready", "the stages are still loading their model", retry_after_s=1)
        return JSONResponse({"status": "ready", "model_version": self._bundle.version})

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`"""
        return JSONResponse(openapi.document())

    async def docs(self, request: Request) -> Response:
        """`GET /docs`"""
        return HTMLResponse(openapi.PAGE)

    async def _answer(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        return await self._flow.answer(queries, self._bundle)


def _require_visible(text: str) -> None:
    if not any(char.isprintable() and not char.isspace() for char in text):
        raise ApiError(422, "invalid_field", "the text has no visible character", "text")


def _swagger_assets() -> Path:
    """The Swagger UI files that the package fastapi-offline carries; nothing is fetched from elsewhere."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package fastapi-offline is missing: install the serving requirements")
    return Path(spec.origin).parent / "static"
