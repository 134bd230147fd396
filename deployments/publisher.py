"""The routes that write: screen events and feedback, each onto its Redis stream before it is acknowledged."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from deployments.bodies import decode
from deployments.errors import ApiError
from deployments.identifiers import new_identifier
from deployments.protocol import FeedbackAccepted, FeedbackRequest, ScreenEventAccepted, ScreenEventRequest
from features.schema import FEEDBACK_STREAM, MAX_AHEAD, ScreenEvent, rfc3339
from features.stream import publish


class Publisher:
    """Writes what clients tell.

    Args:
        redis: where the streams are.
        products: those that the present model knows.
    """

    def __init__(self, redis: Redis, products: tuple[str, ...]) -> None:
        self._redis, self._products = redis, products
        self._screen = msgspec.json.Decoder(ScreenEventRequest)
        self._feedback = msgspec.json.Decoder(FeedbackRequest)

    async def screens(self, request: Request) -> Response:
        """`POST /v1/events/screens`"""
        body = await decode(request.scope, request.receive, self._screen)
        now = datetime.now(UTC)
        event = ScreenEvent(body.event_id or new_identifier(), body.user_id, body.screen, body.at or now)
        if event.at > now + MAX_AHEAD:
            raise ApiError(422, "invalid_field", "the moment lies in the future", "at")
        try:
            stream_id = await publish(self._redis, event)
        except (RedisError, OSError, TimeoutError) as error:
            message = f"the event stream is not available ({type(error).__name__}); nothing was stored"
            raise ApiError(503, "unavailable", message, retry_after_s=1) from None
        accepted = msgspec.json.encode(ScreenEventAccepted(event.event_id, stream_id))
        return Response(accepted, 202, media_type="application/json")

    async def feedback(self, request: Request) -> Response:
        """`POST /v1/feedback`"""
        body = await decode(request.scope, request.receive, self._feedback)
        at = rfc3339(datetime.now(UTC))
        entry: dict[Any, Any] = {"request_id": body.request_id, "product": body.product, "at": at}
        try:
            stream_id = str(await self._redis.xadd(FEEDBACK_STREAM, entry))
        except (RedisError, OSError, TimeoutError) as error:
            message = f"feedback cannot be stored ({type(error).__name__})"
            raise ApiError(503, "unavailable", message, retry_after_s=1) from None
        known = body.product in self._products
        accepted = msgspec.json.encode(FeedbackAccepted(body.request_id, stream_id, known))
        return Response(accepted, 202, media_type="application/json")
