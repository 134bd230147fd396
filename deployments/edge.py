"""ASGI middleware in front of Ray Serve's own handling of a request, in the replica of the ingress.

Two fifths of the ingress' time for a prediction were spent in Ray: identifiers, tracing, slots, metrics, watching for
clients that disconnect. Predictions need none of it: they end by themselves within their deadline, wait in a bounded
queue, and are counted by `RequestMeter`. So they are answered before Ray sees them. Only the first one goes through
Ray, since it shows under which path, prefix included, predictions arrive. All other paths remain Ray's.

Ray installs the middleware where the environment variable `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` is
`deployments.edge:middlewares`. Without it, and behind a proxy in another process, every request goes through Ray.
"""

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.identifiers import new_identifier
from deployments.one_write import one_write

_IDENTIFIER = b"x-request-id"
_TIMEOUT = b"x-request-timeout-seconds"
MAX_IDENTIFIER = 1024
"""Bytes of a client's `X-Request-ID` that come back: HAProxy makes a 500 of an answer with 15 KiB of headers."""
_shortcuts: dict[str, tuple[ASGIApp, asyncio.AbstractEventLoop]] = {}


def shorten(path: str, app: ASGIApp) -> None:
    """Register the application that answers a path without Ray from now on, on the running event loop."""
    _shortcuts[path] = (app, asyncio.get_running_loop())


class Edge:
    """Sends requests for a registered path to its application, and others to Ray's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in _shortcuts:
            shortcut, loop = _shortcuts[scope["path"]]
            if loop is asyncio.get_running_loop():
                await shortcut(scope, receive, _identified(scope, one_write(send)))
                return
        await self._app(_readable(scope), receive, send)


def _readable(scope: Scope) -> Scope:
    """The same request without headers that Ray would answer itself: with a 500 what is not UTF-8, with a 408 in plain
    text after a time-out that the client sets; and without an identifier that no answer can carry."""
    given = scope.get("headers", ())
    headers = [(name, value) for name, value in given if name != _TIMEOUT and _fits(name, value)]
    return scope if len(headers) == len(given) else {**scope, "headers": headers}


def _fits(name: bytes, value: bytes) -> bool:
    try:
        name.decode(), value.decode()
    except UnicodeDecodeError:
        return False
    return name != _IDENTIFIER or len(value) <= MAX_IDENTIFIER


def _identified(scope: Scope, send: Send) -> Send:
    """Adds `X-Request-ID` to an answer, as Ray does: the client's own, or a new one."""
    given = [value for name, value in scope["headers"] if name == _IDENTIFIER and _fits(name, value)]
    identifier = given[0] if given else new_identifier().encode()

    async def identified(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (_IDENTIFIER, identifier)]
        await send(message)

    return identified


def middlewares() -> list[Middleware]:
    """The middleware that Ray adds to its own application."""
    return [Middleware(Edge)]
