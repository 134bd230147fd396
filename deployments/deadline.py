"""How much time a batch has left, for stages that must answer before whoever waits for the batch gives up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

STAGE_SHARE = 0.85
"""Of the time that is left: what a stage may use, so that its answer still finds somebody."""
TOO_SLOW = "the classifier has not answered in time"
"""What is said of rows of a `LogitBatch` that are late."""
_deadline: ContextVar[float] = ContextVar("deadline")


class DeadlinePassed(TimeoutError):
    """A message was not answered in time; becomes a 504."""


@asynccontextmanager
async def deadline(at: float) -> AsyncIterator[None]:
    """Give a batch up at a moment, in the running loop's time, and have its stages know; an earlier one stays known.

    Raises:
        TimeoutError: it has come.
    """
    token = _deadline.set(min(at, _deadline.get(at)))
    try:
        async with asyncio.timeout_at(at):
            yield
    finally:
        _deadline.reset(token)


def within_s(otherwise: float) -> float:
    """Seconds that a stage may take for the batch that runs in this context; `otherwise` where it has no deadline."""
    at = _deadline.get(None)
    return otherwise if at is None else max(0.0, (at - asyncio.get_running_loop().time()) * STAGE_SHARE)
