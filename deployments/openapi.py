"""The OpenAPI document, made from the wire types that decode the requests, and a page that shows it."""

from importlib.metadata import version
from typing import Any

import msgspec

from deployments import inference_protocol as tensors
from deployments import protocol as wire
from deployments.inference_routes import MODEL, VERSION
from deployments.inference_tensors import MAX_MESSAGES
from deployments.status_schemas import LIVE, MODELS, READY

_JSON = "application/json"
_ERRORS = {
    400: "The body is not JSON or not UTF-8, or did not arrive: `body_timeout` after ten seconds, or `disconnected`.",
    401: "Keys are needed here, and the request has none that is known.",
    404: "No model of this name or version serves here.",
    413: "The body exceeds 64 KiB, or 2 MiB if it holds tensors.",
    415: "The content type is not application/json, or the body is compressed.",
    422: "A field is missing, unknown, of the wrong type or out of its limits; `field` names it.",
    429: "Too many messages are waiting; `Retry-After` says when to come back.",
    503: "A part that the answer needs is not available.",
    504: "No answer within the deadline.",
}
_DESCRIPTION = (
    "Errors have the format of `ErrorResponse`. A method that is not described here gets 405 and `Allow`, a path 404, "
    "and a defect of the service is a 500. Only the proxy's own answers are no JSON: 400 to what is no HTTP or has "
    "more than 100 headers or 15 KiB of them, and 404 while it starts."
)
_IDENTIFIER = {
    "X-Request-ID": {
        "description": "The request's own header of this name, if that is UTF-8 of at most 1,024 bytes, or a new one.",
        "schema": {"type": "string"},
    }
}
_TIMING = {
    "Server-Timing": {
        "description": "Where the time went, in milliseconds: in the queue, in each stage, in total.",
        "schema": {"type": "string"},
    }
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}}
_ALSO = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}
_KEY = {"type": "http", "scheme": "bearer", "description": "Where the operator has set API keys, one of them."}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Switchboard API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css"></head>
<body><div id="ui"></div><script src="docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui"})</script></body></html>
"""


def document(prefix: str = "") -> dict[str, Any]:
    """The OpenAPI 3.1 document of the HTTP interface below a path, which is empty or begins with /."""
    types = (
        wire.PredictRequest,
        wire.PredictResponse,
        wire.ScreenEventRequest,
        wire.ScreenEventAccepted,
        wire.FeedbackRequest,
        wire.FeedbackAccepted,
        wire.ErrorResponse,
        tensors.ServerMetadata,
        tensors.ServerLive,
        tensors.ServerReady,
        tensors.ModelMetadata,
        tensors.ModelReady,
        tensors.InferenceRequest,
        tensors.InferenceResponse,
    )
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Switchboard",
            "version": version("switchboard"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": prefix or "/"}],
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/predict": {
                "post": _operation(
                    "Which product is this customer talking about, and which desk takes it?",
                    "PredictRequest", 200, "PredictResponse", (400, 413, 415, 422, 429, 503, 504), _TIMING,
                )
            },
            "/v1/events/screens": {
                "post": _operation(
                    "Publish a screen event to the stream.",
                    "ScreenEventRequest", 202, "ScreenEventAccepted", (400, 413, 415, 422, 503),
                )
            },
            "/v1/feedback": {
                "post": _operation(
                    "Say which product a conversation turned out to be about, for the next training.",
                    "FeedbackRequest", 202, "FeedbackAccepted", (400, 413, 415, 422, 503),
                )
            },
            "/v1/models": {"get": _plain("The model that serves, and a candidate beside it, if any.", answer=MODELS)},
            "/healthz/live": {"get": _probe("The process answers.", answer=LIVE)},
            "/healthz/ready": {"get": _probe("New texts are answered.", 503, answer=READY)},
            **_open_inference(),
        },
        "components": {"schemas": components, "securitySchemes": {"key": _KEY}},
    }  # fmt: skip


def _open_inference() -> dict[str, Any]:
    """The paths of the Open Inference Protocol, version 2."""
    paths: dict[str, Any] = {
        "/v2": {"get": _plain("Open Inference Protocol: what serves here.", answer="ServerMetadata")},
        "/v2/health/live": {"get": _probe("Open Inference Protocol: the process answers.", answer="ServerLive")},
        "/v2/health/ready": {
            "get": _probe("Open Inference Protocol: new texts are answered.", 503, answer="ServerReady")
        },
    }
    for path in (MODEL, VERSION):
        names = ("name", "version") if path == VERSION else ("name",)
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        operations = {
            (path, "get"): _plain("Open Inference Protocol: tensors of the model.", 404, answer="ModelMetadata"),
            (f"{path}/ready", "get"): _plain(
                "Open Inference Protocol: the model answers inferences.", 404, 503, answer="ModelReady"
            ),
            (f"{path}/infer", "post"): _operation(
                f"Open Inference Protocol: classify up to {MAX_MESSAGES} messages.",
                "InferenceRequest", 200, "InferenceResponse", (400, 404, 413, 415, 422, 429, 503, 504),
            ),
        }  # fmt: skip
        for (whole, method), operation in operations.items():
            paths[whole] = {method: {**operation, "parameters": parameters}}
    return paths


def _operation(
    summary: str,
    body: str,
    status: int,
    answer: str,
    errors: tuple[int, ...],
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _content(_named(body))},
        "responses": {str(status): _success(_named(answer), headers), **_failures((401, *errors))},
    }


def _probe(summary: str, *errors: int, answer: str | dict[str, Any]) -> dict[str, Any]:
    """What is asked for without a key."""
    return {**_get(summary, errors, answer), "security": []}


def _plain(summary: str, *errors: int, answer: str | dict[str, Any]) -> dict[str, Any]:
    return _get(summary, (401, *errors), answer)


def _get(summary: str, errors: tuple[int, ...], answer: str | dict[str, Any]) -> dict[str, Any]:
    schema = _named(answer) if isinstance(answer, str) else answer
    return {"summary": summary, "responses": {"200": _success(schema), **_failures(errors)}}


def _success(schema: dict[str, Any], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": "Success.", "headers": {**_IDENTIFIER, **(headers or {})}, "content": _content(schema)}


def _failures(errors: tuple[int, ...]) -> dict[str, Any]:
    return {
        str(status): {
            "description": _ERRORS[status],
            "headers": {**_IDENTIFIER, **_ALSO.get(status, {})},
            "content": _content(_named("ErrorResponse")),
        }
        for status in errors
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
