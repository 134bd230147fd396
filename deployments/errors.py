"""Errors as clients see them: `{"error": {"code", "message", "field"?}}`, never a stack trace."""

import re

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.defects import log_defect
from deployments.protocol import ErrorBody, ErrorResponse

_FIELD = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED = re.compile(r"field `([^`]*)`")
_CODES = {404: "not_found", 405: "method_not_allowed", 401: "unauthorized", 403: "forbidden"}


class ApiError(Exception):
    """An error with a status and a body of its own.

    Args:
        hang_up: whether the connection is closed, since the rest of the request is of no interest.
        challenge: what a client must send to be let in, as `WWW-Authenticate` has it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        retry_after_s: int | None = None,
        hang_up: bool = False,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.hang_up, self.challenge = status, retry_after_s, hang_up, challenge
        self.body = ErrorBody(code, message, field)

    def response(self) -> Response:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.hang_up:
            headers["Connection"] = "close"
        if self.challenge is not None:
            headers["WWW-Authenticate"] = self.challenge
        body = msgspec.json.encode(ErrorResponse(self.body))
        return Response(body, self.status, headers, media_type="application/json")


def invalid_json(error: Exception, within: str = "") -> ApiError:
    """What `msgspec` says of a body, or of the part of it at `within`, with the field where it names one."""
    message = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, "invalid_json", f"the body is not valid JSON: {message}")
    place, named = _FIELD.search(message), _NAMED.search(message)
    parent = within + (place.group(1) if place else "")
    field = ".".join(part for part in (parent, named and named.group(1)) if part) or None
    return ApiError(422, "invalid_field" if field else "invalid_body", _FIELD.sub("", message), field)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own errors, such as an unknown path, in the same format."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "error")
    response = ApiError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}").response()
    response.headers.update(error.headers or {})
    return response


class Defects:
    """ASGI middleware: an error that nothing else caught is a 500, and goes no further, since servers log its words."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            answer = internal(error)
            if not begun:
                await answer(scope, receive, send)


def internal(error: Exception) -> Response:
    """A defect of ours: logged with its type and place, told without either."""
    log_defect("a request", error)
    return ApiError(500, "internal", "an internal error; it has been logged").response()
