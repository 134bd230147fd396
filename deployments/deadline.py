"""Deadlines of batches, and how much time that leaves a stage to answer before they pass."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

STAGE_SHARE = 0.85
"""Share of the remaining time that a stage may use, so that its answer still arrives in time."""
TOO_SLOW = "the classifier has not answered in time"
"""What is said of rows of a `LogitBatch` that are late."""
_deadline: ContextVar[float] = ContextVar("deadline")


class DeadlinePassed(TimeoutError):
    """A message was not answered in time; becomes a 504."""


@asynccontextmanager
async def deadline(at: float) -> AsyncIterator[None]:
    """Cancel the block at the time `at` of the running loop, and let `within_s` know of it, or of an earlier deadline.

    Raises:
        TimeoutError: the time has come.
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
