"""How much time a batch has left, for stages that must answer before whoever waits for the batch gives up."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SHARE = 0.85
"""Of the time that is left: what a stage may use, so that its answer still finds somebody."""
TOO_SLOW = "the classifier has not answered in time"
"""Why rows of a `LogitBatch` lack logits that would come too late."""
_deadline: ContextVar[float] = ContextVar("deadline")


class DeadlinePassed(TimeoutError):
    """A message was not answered in time; becomes a 504."""


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Note the moment, in the running loop's time, when a batch is given up; an earlier one that was noted stays."""
    token = _deadline.set(min(at, _deadline.get(at)))
    try:
        yield
    finally:
        _deadline.reset(token)


def within_s(otherwise: float) -> float:
    """Seconds that a stage may take for the batch that runs in this context; `otherwise` where it has no deadline."""
    at = _deadline.get(None)
    return otherwise if at is None else max(0.0, (at - asyncio.get_running_loop().time()) * SHARE)
