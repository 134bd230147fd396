"""A bounded memory of recent keys that costs only two dictionaries, instead of an order of use."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Generations(Generic[K, V]):
    """Remembers `entries` to twice as many values by key. Not thread-safe.

    When the young generation is full it replaces the old one, whose entries are forgotten unless `get` was called for
    them, which makes them young again.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: K) -> V | None:
        """The value, which is now young again, or None."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        if len(self._young) >= self._entries:
            self._old, self._young = self._young, {}
        self._young[key] = value
