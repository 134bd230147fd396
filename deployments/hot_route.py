"""The route of predictions without Starlette, which would take 40 microseconds a request instead of 10.

All other routes are Starlette's. Limits of bodies and the format of errors are shared code, so all routes answer alike.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access import path_below
from deployments.errors import ApiError, internal
from deployments.request_meter import RequestMeter

_API = ("/v1/", "/v2/", "/healthz/")
Handler = Callable[[Scope, Receive], Awaitable[tuple[bytes, bytes]]]
"""Gives the JSON body and the value of `Server-Timing`, or raises `ApiError`."""


class HotRoute:
    """An ASGI application: POST of one path to a handler, every other path to another application.

    Args:
        meter: told of every request for the path.
        found: told once under which path, prefixes included, requests for it come, and what answers them.
    """

    def __init__(
        self,
        path: str,
        handler: Handler,
        others: ASGIApp,
        meter: RequestMeter | None = None,
        found: Callable[[str, ASGIApp], None] | None = None,
    ) -> None:
        self._path, self._handler, self._others = path, handler, others
        self._meter, self._found = meter or RequestMeter(), found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            scope = _trimmed(scope)
        if scope["type"] != "http" or path_below(scope) != self._path:
            await self._others(scope, receive, send)
            return
        if self._found is not None:
            self._found(scope["path"], self.answer)
            self._found = None
        await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the path, whatever the path in its scope."""
        began = time.perf_counter()
        status = await self._answer(scope, receive, send)
        self._meter.note(status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        if scope["method"] != "POST":
            return await _respond(_not_allowed(scope["method"], self._path), scope, receive, send)
        try:
            body, timing = await self._handler(scope, receive)
        except ApiError as error:
            return await _respond(error.response(), scope, receive, send)
        except Exception as error:
            return await _respond(internal(error), scope, receive, send)
        length = str(len(body)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"server-timing", timing),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return 200


def _trimmed(scope: Scope) -> Scope:
    """Without slashes at the end of a path of the API. Starlette would redirect to the scheme that it sees, where a
    client of a proxy with TLS would send its message again in the clear."""
    return {**scope, "path": scope["path"].rstrip("/")} if path_below(scope).startswith(_API) else scope


async def _respond(response: Response, scope: Scope, receive: Receive, send: Send) -> int:
    await response(scope, receive, send)
    return response.status_code


def _not_allowed(method: str, path: str) -> Response:
    response = ApiError(405, "method_not_allowed", f"{method} {path}: Method Not Allowed").response()
    response.headers["Allow"] = "POST"
    return response
