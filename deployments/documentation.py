"""Routes of the API's documentation: the OpenAPI document, and a page that shows it without another host."""

import importlib.util
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from deployments import openapi


def routes() -> list[BaseRoute]:
    """`GET /openapi.json` and `GET /docs`, with the page's own files."""
    return [
        Route("/openapi.json", _document),
        Route("/docs", _page),
        Mount("/docs/assets", _Whole(directory=_swagger_assets())),
    ]


class _Whole(StaticFiles):
    """Files as a whole: Starlette's answers to ranges that do not fit have not the format of this API's errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


async def _document(request: Request) -> Response:
    return JSONResponse(openapi.document(request.scope.get("root_path", "")))


async def _page(request: Request) -> Response:
    return HTMLResponse(openapi.PAGE)


def _swagger_assets() -> Path:
    """The Swagger UI files that the package fastapi-offline carries; nothing is fetched from elsewhere."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package fastapi-offline is missing: install the serving requirements")
    return Path(spec.origin).parent / "static"
