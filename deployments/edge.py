"""What stands before Ray's handling of a request, in the process that answers it.

Ray runs two more tasks a request to learn that a client has gone away, a fifth of its own cost. Predictions end
by themselves within their deadline, so nobody needs to watch. Ray is told by a header; the environment variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.edge:middlewares` makes it ask here.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

_HEADER = (b"x-request-disconnect-disabled", b"?1")
_UNWATCHED = "/v1/predict"


class Unwatched:
    """Marks predictions as requests whose client need not be watched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith(_UNWATCHED):
            scope["headers"].append(_HEADER)
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray puts round its own application."""
    return [Middleware(Unwatched)]
