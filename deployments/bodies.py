"""Request bodies: within their limits, JSON, and of the type that a route takes."""

from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from deployments.errors import ApiError, invalid_json

S = TypeVar("S")
MAX_BODY = 64 * 1024


async def decode(request: Request, decoder: msgspec.json.Decoder[S]) -> S:
    """Read and decode a body within its limits.

    Raises:
        ApiError: 400, 413, 415 or 422.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "unsupported_media_type", f"expected application/json, got {media_type!r}")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise ApiError(413, "body_too_large", f"the body exceeds {MAX_BODY} bytes")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise ApiError(413, "body_too_large", f"the body exceeds {MAX_BODY} bytes")
        return decoder.decode(body)
    except ClientDisconnect:
        raise ApiError(400, "disconnected", "the client went away before its body arrived") from None
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_utf8", "the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error) from None
