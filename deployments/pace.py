"""How fast work comes back while more of it waits, and so how long what waits will take.

A queue that is longer than what can be done before its items' deadlines ends with every item done too late: each one
is begun with hardly any time left. Its length alone does not tell; how fast it moves does.
"""

import asyncio
import math

_MEMORY = 0.8
"""What a batch that comes back leaves of the weight of those before it."""
_EVERY_S = 0.05
"""How far ahead the timer is set whose lateness is measured."""
_HALF_LIFE_S = 2.0
"""After which an item counts half as much as one that comes now."""
_CALM = 0.01
"""The share refused up to which nothing is the matter."""
_FRESH_S = 1.0
"""For how long a lateness counts after it was measured."""


class Pace:
    """Seconds an item, over the last few batches; unknown until two have come back that could not take all that waited.

    One that took all shows that nothing is late, and small batches take longer an item.
    """

    def __init__(self) -> None:
        self._seconds = self._items = 0.0
        self._last: float | None = None

    @property
    def each(self) -> float:
        """Seconds between one item and the next; 0 while it is not known."""
        return self._seconds / self._items if self._items else 0.0

    def came_back(self, items: int, at: float, more_came: bool) -> None:
        """Count a batch that came back at a moment in seconds; one that took all that waited makes all be forgotten."""
        if not more_came:
            self.forget()
            return
        if self._last is not None:
            self._seconds = self._seconds * _MEMORY + at - self._last
            self._items = self._items * _MEMORY + items
        self._last = at

    def forget(self) -> None:
        """Know nothing any more, since nothing is late, or nothing is under way and time passes without work."""
        self._seconds, self._items, self._last = 0.0, 0.0, None


class Lag:
    """How late the timers of a busy event loop are: so long a request waits before it is read, and its answer after."""

    def __init__(self) -> None:
        self._late, self._due, self._noted = 0.0, math.inf, -math.inf

    def seconds(self, loop: asyncio.AbstractEventLoop) -> float:
        """The last lateness, 0 if none was measured within a second; measures the next one."""
        now = loop.time()
        if self._due == math.inf:
            self._due = now + _EVERY_S
            loop.call_later(_EVERY_S, self._note, loop)
        return self._late if now - self._noted < _FRESH_S else 0.0

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        self._noted = loop.time()
        self._late, self._due = max(0.0, self._noted - self._due), math.inf


class Refusals:
    """The share of the items of late that were refused."""

    def __init__(self) -> None:
        self.share = 0.0
        self._came = self._at = 0.0

    @property
    def going_on(self) -> bool:
        """Whether enough were refused that an old item has not merely waited for a single stall."""
        return self.share > _CALM

    def note(self, items: int, refused: bool, at: float) -> None:
        """Count items that were refused, or taken, at a moment in seconds."""
        before = self._came * 2.0 ** ((self._at - at) / _HALF_LIFE_S)
        self._came, self._at = before + items, at
        self.share = (self.share * before + items * refused) / self._came
