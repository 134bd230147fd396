"""Ray Serve doing nothing: the ceiling for a graph behind the same proxy. Deployed in place of `graph:build`.

Ray handles each of its requests, which the graph goes past (`deployments/edge.py`): the graph could overtake it.
"""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtests.reflector import ANSWER


async def predict(request: Request) -> Response:
    """Read the body, answer always the same."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


async def ready(request: Request) -> Response:
    """`GET /healthz/ready`"""
    return Response(b'{"status":"ready"}', media_type="application/json")


def app() -> Starlette:
    """The ASGI application."""
    return Starlette(routes=[Route("/v1/predict", predict, methods=["POST"]), Route("/healthz/ready", ready)])


@serve.ingress(app())
class Nothing:
    """Has no work of its own."""


def build(arguments: Mapping[str, Any]) -> Application:
    """The application; what the graph needs arguments for, it has no use for."""
    return serve.deployment(name="Ingress", max_ongoing_requests=4096)(Nothing).bind()
