"""Measurements from which the queue foresees when an arriving item would have its answer.

In a queue that is too long for its items' deadlines, every item is begun with hardly any time left, and all of them are
late. Whether a queue is too long depends on how fast it moves, so that is what is measured.
"""

import asyncio
import math

_MEMORY = 0.8
"""Factor by which the weight of earlier batches shrinks with each one that comes back."""
_EVERY_S = 0.05
"""Delay of the timer whose lateness is measured."""
_HALF_LIFE_S = 2.0
"""Time after which an item counts half as much as one that comes now."""
_CALM = 0.01
"""Share of refused items up to which there is no overload."""
_FRESH_S = 1.0
"""How long a measured lateness remains valid."""


class Pace:
    """The seconds that each item takes, as a weighted mean over the last few batches.

    Only full batches are measured, and at least two are needed. A batch that was not full took all that waited and
    resets the measurement: there is no backlog, and small batches take longer for each item.
    """

    def __init__(self) -> None:
        self._seconds = self._items = 0.0
        self._last: float | None = None

    @property
    def each(self) -> float:
        """Seconds between one item and the next; 0 while it is not known."""
        return self._seconds / self._items if self._items else 0.0

    def came_back(self, items: int, at: float, full: bool) -> None:
        """Note a batch that came back at the time `at`, and whether it was full."""
        if not full:
            self.forget()
            return
        if self._last is not None:
            self._seconds = self._seconds * _MEMORY + at - self._last
            self._items = self._items * _MEMORY + items
        self._last = at

    def forget(self) -> None:
        """Reset the measurement: there is no backlog, or nothing is under way, so that time passes without work."""
        self._seconds, self._items, self._last = 0.0, 0.0, None


class Lag:
    """How late timers fire on a busy event loop: a request waits that long to be read, and its answer to be sent."""

    def __init__(self) -> None:
        self._late, self._due, self._noted = 0.0, math.inf, -math.inf

    def seconds(self, loop: asyncio.AbstractEventLoop) -> float:
        """The last lateness, 0 if none was measured within a second. Starts the next measurement."""
        now = loop.time()
        if self._due == math.inf:
            self._due = now + _EVERY_S
            loop.call_later(_EVERY_S, self._note, loop)
        return self._late if now - self._noted < _FRESH_S else 0.0

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        self._noted = loop.time()
        self._late, self._due = max(0.0, self._noted - self._due), math.inf


class Refusals:
    """The share of recent items that were refused."""

    def __init__(self) -> None:
        self.share = 0.0
        self._came = self._at = 0.0

    @property
    def going_on(self) -> bool:
        """Whether there is overload, rather than a single stall that made a few items wait."""
        return self.share > _CALM

    def note(self, items: int, refused: bool, at: float) -> None:
        """Count items that were refused or taken at the time `at`."""
        before = self._came * 2.0 ** ((self._at - at) / _HALF_LIFE_S)
        self._came, self._at = before + items, at
        self.share = (self.share * before + items * refused) / self._came
