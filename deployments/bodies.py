"""Request bodies: within their limits, JSON, and of the type that a route takes."""

import asyncio
from typing import TypeVar

import msgspec
from starlette.types import Receive, Scope

from deployments.errors import ApiError, invalid_json

S = TypeVar("S")
MAX_BODY = 64 * 1024
PATIENCE_S = 10.0
"""How long a body may take to arrive."""


async def decode(scope: Scope, receive: Receive, decoder: msgspec.json.Decoder[S], patience_s: float = PATIENCE_S) -> S:
    """Read and decode a body within its limits.

    Raises:
        ApiError: 400, 413, 415 or 422.
    """
    for name, value in scope["headers"]:
        if name == b"content-type":
            _require_json(value)
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            raise _too_large()
    try:
        async with asyncio.timeout(patience_s):
            body = await _read(receive)
    except TimeoutError:
        raise ApiError(400, "body_timeout", f"the body did not arrive within {patience_s:g} s") from None
    try:
        return decoder.decode(body)
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_utf8", "the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error) from None


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "disconnected", "the client went away before its body arrived")
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            raise _too_large()
        if not message.get("more_body", False):
            return body


def _require_json(value: bytes) -> None:
    if value == b"application/json":
        return
    media_type = value.decode("latin-1").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "unsupported_media_type", f"expected application/json, got {media_type!r}")


def _too_large() -> ApiError:
    return ApiError(413, "body_too_large", f"the body exceeds {MAX_BODY} bytes")
