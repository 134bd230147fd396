"""Wait for what another process does: ask again until it holds, up to a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T], holds: Callable[[T], bool], timeout_s: float = 60.0) -> T:
    """The first answer that holds.

    Raises:
        AssertionError: showing the last answer, when none held in time.
    """
    end = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if holds(answer):
            return answer
        assert time.monotonic() < end, f"still {answer!r} after {timeout_s:.0f} s"
