"""The routes that write: screen events and feedback, each onto its Redis stream before it is acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from deployments.bodies import decode
from deployments.errors import ApiError
from deployments.identifiers import new_identifier
from deployments.protocol import FeedbackAccepted, FeedbackRequest, ScreenEventAccepted, ScreenEventRequest
from features.schema import FEEDBACK_STREAM, MAX_AHEAD, ScreenEvent, rfc3339, undecodable
from features.stream import publish

T = TypeVar("T")
AT_ONCE = 64
"""Writes under way; others wait, since redis-py refuses more than 100 connections instead of sharing them."""
FEEDBACK_KEPT = 1_000_000
"""Entries of the feedback stream, about 150 MB; older ones go."""


class Publisher:
    """The handlers of both routes.

    Args:
        redis: where the streams are.
        products: those that the present model knows.
        timeout_s: for a write, the wait for its turn included.
    """

    def __init__(self, redis: Redis, products: tuple[str, ...], timeout_s: float = 1.0) -> None:
        self._redis, self._products, self._timeout_s = redis, products, timeout_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._screen = msgspec.json.Decoder(ScreenEventRequest)
        self._feedback = msgspec.json.Decoder(FeedbackRequest)

    async def screens(self, request: Request) -> Response:
        """`POST /v1/events/screens`"""
        body = await decode(request.scope, request.receive, self._screen)
        now = datetime.now(UTC)
        event = ScreenEvent(body.event_id or new_identifier(), body.user_id, body.screen, body.at or now)
        if event.at > now + MAX_AHEAD:
            raise ApiError(422, "invalid_field", "the moment lies in the future", "at")
        if (field := undecodable(event.fields())) is not None:
            raise ApiError(422, "invalid_field", "holds U+FFFD, which stands for bytes that were lost", field)
        try:
            stream_id = await self._in_turn(lambda: publish(self._redis, event))
        except (RedisError, OSError, TimeoutError) as error:
            message = (
                f"the event stream is not available ({type(error).__name__}); send it again with event_id "
                f"{event.event_id!r}, which stores it once even if it has arrived"
            )
            raise ApiError(503, "unavailable", message, retry_after_s=1) from None
        accepted = msgspec.json.encode(ScreenEventAccepted(event.event_id, stream_id))
        return Response(accepted, 202, media_type="application/json")

    async def feedback(self, request: Request) -> Response:
        """`POST /v1/feedback`"""
        body = await decode(request.scope, request.receive, self._feedback)
        at = rfc3339(datetime.now(UTC))
        entry: dict[Any, Any] = {"request_id": body.request_id, "product": body.product, "at": at}
        try:
            stream_id = str(
                await self._in_turn(
                    lambda: self._redis.xadd(FEEDBACK_STREAM, entry, maxlen=FEEDBACK_KEPT, approximate=True)
                )
            )
        except (RedisError, OSError, TimeoutError) as error:
            message = f"feedback cannot be stored ({type(error).__name__})"
            raise ApiError(503, "unavailable", message, retry_after_s=1) from None
        known = body.product in self._products
        accepted = msgspec.json.encode(FeedbackAccepted(body.request_id, stream_id, known))
        return Response(accepted, 202, media_type="application/json")

    async def _in_turn(self, write: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(self._timeout_s), self._turns:
            return await write()
