"""Defects in the logs: where an unexpected error came from, without what it says, which may be a customer's words."""

import logging
import time
import traceback

from deployments.protocol import DependencyError

logger = logging.getLogger(__name__)
EVERY_S = 10.0
"""A defect that every batch meets is told once in this time."""
EXPECTED = (DependencyError, TimeoutError)
_told: dict[tuple[str, str], float] = {}


def log_defect(where: str, error: BaseException) -> None:
    """Log an error's type and stack, unless it is a dependency's or was logged a moment ago.

    Args:
        where: what was being done, in words without anything that came with a request.
    """
    if isinstance(error, EXPECTED):
        return
    stack = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    now, defect = time.monotonic(), (where, f"{type(error).__name__}\n{stack}")
    if now - _told.get(defect, -EVERY_S) >= EVERY_S:
        _told[defect] = now
        logger.error("%s: unexpected %s (its message is left out)\n%s", where, type(error).__name__, stack)
