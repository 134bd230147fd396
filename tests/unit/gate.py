"""An asynchronous step that a test holds until it says how it ends."""

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Held(Generic[A, R]):
    """A call that waits: what it was called with, and the future that ends it."""

    argument: A
    answer: "asyncio.Future[R]"


class Gate(Generic[A, R]):
    """A function whose calls all wait until the test answers them."""

    def __init__(self) -> None:
        self._held: asyncio.Queue[Held[A, R]] = asyncio.Queue()

    async def __call__(self, argument: A) -> R:
        held: Held[A, R] = Held(argument, asyncio.get_running_loop().create_future())
        self._held.put_nowait(held)
        return await held.answer

    @property
    def empty(self) -> bool:
        """Whether no call has come that `next` has not handed out."""
        return self._held.empty()

    async def next(self) -> Held[A, R]:
        """The next call; a test that waits for one that never comes fails."""
        async with asyncio.timeout(60):
            return await self._held.get()
