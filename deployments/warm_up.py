"""Readiness, tested by a batch through the stages: at the start, and after a message had no answer."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from deployments.detached import detached
from deployments.errors import ApiError
from deployments.flow import Flow
from deployments.identifiers import new_identifier
from deployments.protocol import Query
from models.bundle import Bundle

logger = logging.getLogger(__name__)


class WarmUp:
    """Ready when every stage has answered, and no longer after `doubt`, until a new text has an answer again.

    Args:
        flows: of the stages, wherever they may run; the last one is the way of messages.
        bundle: the model that they are asked with.

    Attributes:
        ready: whether new texts are answered.
        begun: whether every stage has answered once.
    """

    def __init__(self, flows: Sequence[Flow], bundle: Bundle) -> None:
        self.ready = self.begun = False
        self._flows, self._bundle = [replace(flow, record=None) for flow in flows], bundle
        self._again: asyncio.Task[None] | None = None

    async def until_ready(self, pause_s: float = 0.5) -> None:
        """Call this object again and again until every stage has answered."""
        told = ""
        while not self.ready:
            try:
                await self()
            except Exception as error:
                if told != repr(error):
                    told = repr(error)
                    logger.warning("warm-up: %s; tried again every %.1f s", told, pause_s)
                await asyncio.sleep(pause_s)

    async def __call__(self) -> None:
        """Send a batch through every stage, once that has worked only on the way of messages; ready when it comes back.

        Raises:
            DependencyError: a stage that an answer needs did not answer.
        """
        await self._answer(self._flows[-1:] if self.begun else self._flows, self._bundle)
        self.ready = self.begun = True

    async def send(self, bundle: Bundle) -> None:
        """Have every stage answer with a bundle."""
        await self._answer(self._flows, bundle)

    async def _answer(self, flows: Sequence[Flow], bundle: Bundle) -> None:
        query = Query("warm-up", "warm-up", f"is this thing on {new_identifier()}", 1)  # new, so that no cache knows it
        for flow in flows:
            for answer in await flow.answer([query] * 2, bundle):
                if isinstance(answer, Exception):
                    raise answer

    def doubt(self) -> None:
        """Be no longer ready, as a message had no answer for lack of a stage, and test the stages again."""
        if self.ready:
            self.ready = False
            self._again = detached(self.until_ready())

    def require(self) -> None:
        """Raise `ApiError` 503 unless new texts are answered."""
        if not self.ready:
            raise ApiError(503, "not_ready", "a stage does not answer, or not yet", retry_after_s=1)

    def levels(self) -> dict[str, float]:
        return {"ready": float(self.ready)}
