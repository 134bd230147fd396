"""The Open Inference Protocol, version 2, under `/v2`: the model as tensors, for clients that know no other way.

Every message of an inference goes the way that it would go alone, so one answer is the same as the other. Errors
have the format of this service's other routes, where the protocol would have a string.
"""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.bodies import decode
from deployments.errors import ApiError
from deployments.flow import Answer
from deployments.inference_protocol import (
    InferenceRequest,
    InferenceResponse,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from deployments.inference_tensors import metadata, outputs, queries, wanted
from deployments.protocol import Query

MAX_INFERENCE_BODY = 2 * 1024 * 1024
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
_BINARY = "inference-header-content-length"


class InferenceRoutes:
    """The routes of one model.

    Args:
        model: its name.
        model_version: the only version that serves.
        answer: n messages to n answers, in order.
        require_ready: raises 503 while the stages cannot answer yet.
    """

    def __init__(
        self,
        model: str,
        model_version: str,
        answer: Callable[[Sequence[Query]], Awaitable[list[Answer]]],
        require_ready: Callable[[], None],
    ) -> None:
        self._model, self._version = model, model_version
        self._answer, self._require_ready = answer, require_ready
        self._metadata = metadata(model, model_version)
        self._server = ServerMetadata("switchboard", version("switchboard"), [])
        self._request = msgspec.json.Decoder(InferenceRequest)

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *(Route(path, self.model) for path in (MODEL, VERSION)),
            *(Route(f"{path}/ready", self.model_ready) for path in (MODEL, VERSION)),
            *(Route(f"{path}/infer", self.infer, methods=["POST"]) for path in (MODEL, VERSION)),
        ]

    async def server(self, request: Request) -> Response:
        """`GET /v2`"""
        return _json(self._server)

    async def live(self, request: Request) -> Response:
        """`GET /v2/health/live`"""
        return _json(ServerLive(live=True))

    async def ready(self, request: Request) -> Response:
        """`GET /v2/health/ready`"""
        self._require_ready()
        return _json(ServerReady(live=True, ready=True))

    async def model(self, request: Request) -> Response:
        """`GET /v2/models/{name}[/versions/{version}]`"""
        self._require_served(request)
        return _json(self._metadata)

    async def model_ready(self, request: Request) -> Response:
        """`GET /v2/models/{name}[/versions/{version}]/ready`"""
        self._require_served(request)
        self._require_ready()
        return _json(ModelReady(self._model, ready=True))

    async def infer(self, request: Request) -> Response:
        """`POST /v2/models/{name}[/versions/{version}]/infer`"""
        self._require_served(request)
        if _BINARY in request.headers:
            message = "the binary data extension is not offered: send tensors as JSON, without binary_data"
            raise ApiError(415, "unsupported_media_type", message, "Inference-Header-Content-Length")
        body = await decode(request.scope, request.receive, self._request, limit=MAX_INFERENCE_BODY)
        names = wanted(body)
        answers = [answer.response for answer in await self._answer(queries(body))]
        return _json(InferenceResponse(self._model, self._version, outputs(names, answers), body.id))

    def _require_served(self, request: Request) -> None:
        name, asked = request.path_params["name"], request.path_params.get("version", self._version)
        if name != self._model:
            raise ApiError(404, "not_found", f"no model {name!r} serves here, only {self._model!r}")
        if asked != self._version:
            raise ApiError(404, "not_found", f"no version {asked!r} of {name!r} serves here, only {self._version!r}")


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
