"""Request bodies: within their limits, JSON, and of the type that a route takes."""

import asyncio
from typing import TypeVar

import msgspec
from starlette.types import Receive, Scope

from deployments.errors import ApiError, invalid_json

S = TypeVar("S")
MAX_BODY = 64 * 1024
BODY_TIMEOUT_S = 10.0
"""How long a body may take to arrive."""


async def decode(
    scope: Scope,
    receive: Receive,
    decoder: msgspec.json.Decoder[S],
    timeout_s: float = BODY_TIMEOUT_S,
    limit: int = MAX_BODY,
) -> S:
    """Read and decode a body of `limit` bytes at the most.

    Raises:
        ApiError: 400, 413, 415 or 422.
    """
    for name, value in scope["headers"]:
        if name == b"content-type":
            _require_json(value)
        elif name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise ApiError(
                415, "unsupported_encoding", "bodies are read as they come: send it without Content-Encoding"
            )
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(receive, limit)
    except TimeoutError:
        raise ApiError(400, "body_timeout", f"the body did not arrive within {timeout_s:g} s", hang_up=True) from None
    return parse(decoder, body)


def parse(decoder: msgspec.json.Decoder[S], body: bytes | msgspec.Raw, within: str = "") -> S:
    """Decode a body, or the part of it that lies at `within`.

    Raises:
        ApiError: 400 or 422.
    """
    try:
        return decoder.decode(body)
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_utf8", "the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error, within) from None


async def _read(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "disconnected", "the client went away before its body arrived")
        chunk = bytes(message.get("body", b""))
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _require_json(value: bytes) -> None:
    if value == b"application/json":
        return
    media_type = value.decode("latin-1").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "unsupported_media_type", f"expected application/json, got {media_type!r}")


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"the body exceeds {limit} bytes", hang_up=True)
