"""Wait for what another process does: ask again until it holds, up to a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")
PAUSE_S = 0.02
"""Between two questions, so that whoever is waited for has the processor."""


def until(ask: Callable[[], T], holds: Callable[[T], bool], timeout_s: float = 180.0) -> T:
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
        time.sleep(PAUSE_S)


def page(url: str) -> str:
    """What a server answers, for asking again; nothing while it does not answer."""
    try:
        return httpx.get(url, timeout=60).text
    except httpx.TransportError:
        return ""
