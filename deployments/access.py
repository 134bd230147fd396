"""API keys: who may ask. They travel as SHA-256 digests, so no configuration, argument or log holds one.

A key is sent as a bearer token (RFC 6750). Probes and the documentation ask for none.
"""

import re
from collections.abc import Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import ApiError

OPEN = ("/healthz/", "/v2/health/", "/docs", "/openapi.json")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_BEARER = b"bearer "


def digests(keys: str) -> frozenset[bytes]:
    """The digests of keys, separated by commas.

    Raises:
        ValueError: one is shorter than 16 characters, or holds others than letters, digits and ._~+/=-; the message
            tells which, and not the key.
    """
    given = [key.strip() for key in keys.split(",")]
    for number, key in enumerate(given, 1):
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"key {number} of {len(given)}: expected 16 or more letters, digits or ._~+/=-, and commas between"
            )
    return frozenset(sha256(key.encode()).digest() for key in given)


class Access:
    """Lets those in who send one of the keys; everybody, if there is none."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys = frozenset(keys)

    def require(self, scope: Scope) -> None:
        """Raise `ApiError` 401 unless the request may be answered."""
        if not self._keys:
            return
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1 or sent[0][: len(_BEARER)].lower() != _BEARER:
            raise ApiError(401, "unauthorized", "expected one header 'Authorization: Bearer KEY'", challenge="Bearer")
        if sha256(sent[0][len(_BEARER) :].strip()).digest() not in self._keys:
            challenge = 'Bearer error="invalid_token"'
            raise ApiError(401, "unauthorized", "the key in 'Authorization' is not known", challenge=challenge)


class Guard:
    """ASGI middleware: what is not open to all is asked for with a key."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not path_below(scope).startswith(OPEN):
            try:
                self._access.require(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def path_below(scope: Scope) -> str:
    """The path below the prefix at which the application is mounted."""
    path, root = str(scope["path"]), scope.get("root_path")
    return path.removeprefix(root) if root else path
