"""How fast work comes back while more of it waits, and so how long what waits will take.

A queue that is longer than what can be done before its items' deadlines ends with every item done too late: each one
is begun with hardly any time left. Its length alone does not tell; how fast it moves does.
"""

_MEMORY = 0.8
"""What a batch that comes back leaves of the weight of those before it."""


class Pace:
    """Seconds an item, over the last few batches; unknown until two have come back that were as large as they may be.

    A smaller batch has taken all that waited: nothing is late, and small batches take longer an item.
    """

    def __init__(self) -> None:
        self._seconds = self._items = 0.0
        self._last: float | None = None

    @property
    def each(self) -> float:
        """Seconds between one item and the next; 0 while it is not known."""
        return self._seconds / self._items if self._items else 0.0

    def came_back(self, items: int, at: float, full: bool) -> None:
        """Count a batch that came back at a moment in seconds; one that was not full makes all be forgotten."""
        if not full:
            self._seconds, self._items, self._last = 0.0, 0.0, None
            return
        if self._last is not None:
            self._seconds = self._seconds * _MEMORY + at - self._last
            self._items = self._items * _MEMORY + items
        self._last = at
