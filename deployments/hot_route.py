"""The one route that every message takes, without the framework's share: 30 of Starlette's 40 microseconds.

The other routes stay with Starlette. What they have in common, limits of bodies and the format of errors, is
shared code, so both answer alike.
"""

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import ApiError, internal

Handler = Callable[[Scope, Receive], Awaitable[tuple[bytes, bytes]]]
"""Gives the JSON body and the value of `Server-Timing`, or raises `ApiError`."""


class HotRoute:
    """An ASGI application: POST of one path to a handler, every other path to another application."""

    def __init__(self, path: str, handler: Handler, others: ASGIApp) -> None:
        self._path, self._handler, self._others = path, handler, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _path(scope) != self._path:
            await self._others(scope, receive, send)
            return
        if scope["method"] != "POST":
            await _not_allowed(scope["method"], self._path)(scope, receive, send)
            return
        try:
            body, timing = await self._handler(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except Exception as error:
            await internal(error, self._path)(scope, receive, send)
            return
        length = str(len(body)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"server-timing", timing),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _path(scope: Scope) -> str:
    """The path below the prefix at which the application is mounted."""
    path, root = str(scope["path"]), scope.get("root_path")
    return path.removeprefix(root) if root else path


def _not_allowed(method: str, path: str) -> Response:
    response = ApiError(405, "method_not_allowed", f"{method} {path}: Method Not Allowed").response()
    response.headers["Allow"] = "POST"
    return response
