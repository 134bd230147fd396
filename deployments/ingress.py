"""The HTTP interface: validation, deadlines, a bounded queue in front of the flow, and the small routes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope

from deployments import documentation
from deployments.access import Access, Guard
from deployments.arrival import unread_s
from deployments.batching import NaturalBatcher, QueueFull
from deployments.bodies import decode
from deployments.deadline import DeadlinePassed
from deployments.errors import ApiError, Defects, on_api_error, on_http_exception
from deployments.flow import Answer, Flow
from deployments.hot_route import HotRoute
from deployments.identifiers import new_identifier
from deployments.inference_routes import InferenceRoutes
from deployments.protocol import DependencyError, PredictRequest, Query, visible
from deployments.publisher import Publisher
from deployments.request_meter import Metric, RequestMeter
from deployments.rollout import CANDIDATE_TIMEOUT_S, CandidateConfig, Rollout
from deployments.warm_up import WarmUp
from models.bundle import Bundle
from models.registry import Registry

logger = logging.getLogger(__name__)
PREDICT = "/v1/predict"


class IngressConfig(BaseModel):
    """What changes while the ingress serves. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_in_flight: int = Field(default=2, ge=1)
    max_batch: int = Field(default=64, ge=1)
    max_queue: int = Field(default=2048, ge=1)
    deadline_ms: int = Field(default=2000, ge=1)
    candidate: CandidateConfig | None = None
    """A second model beside the present one."""


class Ingress:
    """Answers HTTP requests with a flow.

    It is ready when every stage has answered, and no longer when a message had no answer for lack of one, until a new
    text has an answer again. It goes on serving meanwhile: what the cache knows needs no classifier.

    Args:
        flow: the stages.
        bundle: the model that answers.
        redis: for publishing screen events and feedback.
        on_stop: runs once, after the last answer of a clean stop.
        model: the name or version that the bundle was asked for by.
        publish_timeout_s: for a screen event or a feedback to be written.
        load: name or version of a candidate to its bundle; by default from the project's own registry.
        warm: further stages to warm; those that an answer needs must have answered before the ingress is ready.
        access: who may ask; by default everybody.
    """

    def __init__(
        self,
        flow: Flow,
        bundle: Bundle,
        redis: Redis,
        config: IngressConfig | None = None,
        on_stop: Callable[[], None] | None = None,
        warm: Flow | None = None,
        model: str = "production",
        publish_timeout_s: float = 1.0,
        load: Callable[[str], Bundle] | None = None,
        access: Access | None = None,
    ) -> None:
        self.abstained = self.degraded = 0
        self.routed = Counter[str]()
        self.requests = RequestMeter()
        self._bundle, self._on_stop, self._model = bundle, on_stop, model
        self.warm_up = WarmUp([flow] if warm is None else [warm, flow], bundle)
        self.rollout = Rollout(flow, bundle, load or Registry().load, self.warm_up.send)
        self.batcher: NaturalBatcher[Query, Answer] = NaturalBatcher(self.rollout.answer)
        self._predict = msgspec.json.Decoder(PredictRequest)
        self._inference = InferenceRoutes(model, bundle.version, self.answer_all, self.warm_up.require)
        self._access = access or Access()
        self._publisher = Publisher(redis, bundle.manifest.labels, publish_timeout_s)
        self.configure(config or IngressConfig())

    def configure(self, config: IngressConfig) -> None:
        """Change the limits and the wanted candidate, also while serving."""
        self.config = config
        self.rollout.wanted = config.candidate
        self.rollout.timeout_s = min(CANDIDATE_TIMEOUT_S, config.deadline_ms / 2000)  # the present model needs the rest
        self.batcher.max_in_flight = config.max_in_flight
        self.batcher.max_batch = config.max_batch
        self.batcher.max_queue = config.max_queue

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
            *self._inference.routes(),
            *documentation.routes(),
        ]
        handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
            ApiError: on_api_error,
            HTTPException: on_http_exception,
        }
        guards = [Middleware(Defects), Middleware(Guard, access=self._access)]
        return Starlette(routes=routes, middleware=guards, exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        if self._on_stop is not None:
            await asyncio.to_thread(self._on_stop)

    def counts(self) -> dict[Metric, float]:
        routed: dict[Metric, float] = {("routed_total", "desk", desk): n for desk, n in self.routed.items()}
        return routed | {"abstained_total": self.abstained, "degraded_total": self.degraded}

    async def predict(self, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        """`POST /v1/predict`: the body of the answer, and where its time went."""
        arrived = time.perf_counter()
        self._access.require(scope)
        waited_s = unread_s(receive) if self.batcher.strained else 0.0
        self._require_room(1, waited_s)  # before it has cost anything
        body = await decode(scope, receive, self._predict)
        if not visible(body.text):
            raise ApiError(422, "invalid_field", "the text has no visible character", "text")
        query = Query(body.request_id or new_identifier(), body.user_id, body.text, body.top_k)
        answer = await self.answer(query, waited_s)
        total = (time.perf_counter() - arrived) * 1000
        queue = max(0.0, total - answer.milliseconds["flow"])
        timing = f"queue;dur={queue:.2f}, {answer.server_timing}, total;dur={total:.2f}"
        return msgspec.json.encode(answer.response), timing.encode()

    async def answer(self, query: Query, waited_s: float = 0.0) -> Answer:
        """The answer to one message, counted.

        Args:
            waited_s: how long ago the message came.

        Raises:
            ApiError: 429, 503 or 504.
        """
        came = time.perf_counter()
        try:
            answer = await self.batcher.submit(query, self.config.deadline_ms / 1000, waited_s)
        except (QueueFull, DeadlinePassed) as error:
            raise _refusal(error) from None
        except DependencyError as error:
            self.warm_up.doubt()
            raise _refusal(error) from None
        waited = (time.perf_counter() - came) * 1000 - answer.milliseconds["flow"]
        self.rollout.stages.note({"queue": max(0.0, waited)})
        action = answer.response.action
        self.routed[action.desk] += 1
        self.abstained += action.type == "general_queue"
        self.degraded += bool(answer.response.degraded)
        return answer

    async def answer_all(self, queries: Sequence[Query]) -> list[Answer]:
        """The answers to messages that stand or fall together, in order.

        Raises:
            ApiError: 429, 503 or 504, of the first that has no answer; the others are given up. 422 for more than may
                ever wait.
        """
        if len(queries) > (most := self.batcher.max_queue):
            message = f"{len(queries)} messages, and this service takes at most {most} at once (max_queue): send fewer"
            raise ApiError(422, "invalid_field", message, "inputs")
        self._require_room(len(queries))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.answer(query)) for query in queries]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def _require_room(self, messages: int, waited_s: float = 0.0) -> None:
        try:
            self.batcher.require_room(messages, self.config.deadline_ms / 1000, waited_s)
        except QueueFull as error:
            raise _refusal(error) from None

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`"""
        models = [{"name": self._model, "role": "present", **_shown(self._bundle)}]
        candidate = self.rollout.candidate
        if candidate is not None:
            loaded = _shown(candidate.bundle) if candidate.bundle else {}
            models.append({"name": candidate.config.model, "role": "candidate", **candidate.summary(), **loaded})
        return JSONResponse({"models": models})

    async def live(self, request: Request) -> Response:
        """`GET /healthz/live`"""
        return JSONResponse({"status": "live"})

    async def readiness(self, request: Request) -> Response:
        """`GET /healthz/ready`"""
        self.warm_up.require()
        return JSONResponse({"status": "ready", "model_version": self._bundle.version})


def _shown(bundle: Bundle) -> dict[str, Any]:
    return bundle.manifest.model_dump(mode="json", include={"version", "labels", "fingerprint", "metrics"})


def _refusal(error: Exception) -> ApiError:
    """What a client is told of a message without an answer."""
    if isinstance(error, DeadlinePassed):
        return ApiError(504, "deadline_exceeded", str(error))
    if isinstance(error, QueueFull):
        return ApiError(429, "overloaded", str(error), retry_after_s=1)
    return ApiError(503, "unavailable", str(error), retry_after_s=1)
