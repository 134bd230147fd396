"""Natural batching: items that arrive while others are on their way form the next batch.

While fewer than `max_in_flight` batches are out, a waiting item leaves at once, alone if need be; otherwise items
wait, and the next batch takes all of them, up to `max_batch`. There is no timer, so no delay when idle, and
batches grow by themselves under load. What comes faster than it can be answered in time is refused at once, so that
the rest is answered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from deployments.deadline import DeadlinePassed, deadline
from deployments.detached import detached
from deployments.pace import Lag, Pace, Refusals

T = TypeVar("T")
R = TypeVar("R")
ADMISSION_SHARE = 0.65
"""Once more items wait than fill a batch, an arriving item is refused unless its answer is foreseen within this share
of its time-out. When more wait than the next batches take, the limit is multiplied by (1 - recent share refused)
squared, because refusing takes time too. That stricter limit also applies, while items are being refused, to the time
that an item waited before it was read."""
_NEVER_TOO_OLD_SHARE = 0.25
"""The share of its time-out that an item may always have waited before it was read, however many are refused."""
ALWAYS_SENT_SHARE = 0.25
"""A queued item is dropped if it has less time left than its batch is foreseen to take, but never while more than this
share of its time-out is left."""


class QueueFull(RuntimeError):
    """More items wait than the queue holds, or than can be answered in time; becomes a 429."""


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    future: "asyncio.Future[R]"
    deadline: float
    timeout_s: float


class NaturalBatcher(Generic[T, R]):
    """Calls `process` with batches of waiting items.

    Args:
        process: n items to n results or errors, in order. Raising fails the whole batch. It is cancelled when the last
            deadline in the batch has passed.
        max_in_flight: batches on their way at once.
        max_batch: items in one batch.
        max_queue: items that may wait.
    """

    def __init__(
        self,
        process: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_in_flight: int = 2,
        max_batch: int = 64,
        max_queue: int = 2048,
    ) -> None:
        self._process = process
        self.max_in_flight, self.max_batch, self.max_queue = max_in_flight, max_batch, max_queue
        self.in_flight = self.shed = self.expired = self.batches = self.items = 0
        self._waiting: OrderedDict[asyncio.Future[R], _Waiting[T, R]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._travelling = 0
        self._pace, self._lag, self._refusals = Pace(), Lag(), Refusals()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def strained(self) -> bool:
        """Whether items wait, or some were refused of late."""
        return bool(self._waiting) or self._refusals.going_on

    def counts(self) -> dict[str, float]:
        return {
            "batches_total": self.batches,
            "batched_messages_total": self.items,
            "shed_total": self.shed,
            "expired_total": self.expired,
        }

    def levels(self) -> dict[str, float]:
        return {"queue_length": len(self), "batches_in_flight": self.in_flight}

    def require_room(self, n: int, timeout_s: float, waited_s: float = 0.0) -> None:
        """Refuse n items, which stand or fall together, before one of them costs anything.

        Args:
            timeout_s: from when they came to their answers.
            waited_s: how long ago they came.

        Raises:
            QueueFull: the queue does not take all of them, or is too long for answers in time.
        """
        waiting = len(self._waiting)
        within_s = timeout_s * ADMISSION_SHARE
        strict_s = within_s * (1 - self._refusals.share) ** 2
        if waiting + n > self.max_batch * self.max_in_flight:  # less would not fill the batches that leave next
            within_s = strict_s
        too_old_s = max(strict_s, timeout_s * _NEVER_TOO_OLD_SHARE)
        if waiting + n > self.max_queue:
            reason = f"{waiting} messages are waiting already"
        elif self._refusals.going_on and waited_s > too_old_s:
            reason = "messages come faster than they can be read"
        elif waiting + n > self.max_batch and self._foreseen_s(waiting + n) + self._unseen_s(waited_s) > within_s:
            reason = f"{waiting} messages are waiting already, as many as can be answered in time"
        else:
            return
        self.shed += n
        self._refusals.note(n, True, asyncio.get_running_loop().time())
        raise QueueFull(reason if n == 1 else f"{n} messages do not fit: {reason}")

    async def submit(self, item: T, timeout_s: float, waited_s: float = 0.0) -> R:
        """Wait for the item's result; the wait in the queue counts, and so does the one before, `waited_s`.

        Raises:
            QueueFull: at once, when the queue is full, or too long for an answer in time.
            DeadlinePassed: `timeout_s` after it came. An item still queued then never reaches `process`.
        """
        self.require_room(1, timeout_s, waited_s)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        now = loop.time()
        until = now + timeout_s - waited_s
        self._refusals.note(1, False, now)
        self._waiting[future] = _Waiting(item, future, until, timeout_s)
        if not self._scheduled and self.in_flight < self.max_in_flight:
            self._scheduled = True
            loop.call_soon(self._dispatch)
        timer = loop.call_at(until, self._expire, future, timeout_s)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)

    def _foreseen_s(self, items: int) -> float:
        """How long it will take until so many items more than those that travel are answered; 0 if that is unknown."""
        return (self._travelling + items) * self._pace.each

    def _unseen_s(self, waited_s: float) -> float:
        """How long an item has waited before it came here, and will before its caller has the answer."""
        lag_s = self._lag.seconds(asyncio.get_running_loop())
        return max(waited_s, lag_s) + lag_s

    def _expire(self, future: "asyncio.Future[R]", timeout_s: float) -> None:
        if not future.done():
            self.expired += 1
            future.set_exception(DeadlinePassed(f"no answer within {timeout_s * 1000:.0f} ms"))

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._waiting and self.in_flight < self.max_in_flight:
            batch, full = self._next_batch()
            if batch:
                self.in_flight += 1
                self._travelling += len(batch)
                self.batches += 1
                self.items += len(batch)
                task = detached(self._run(batch, full))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> tuple[list[_Waiting[T, R]], bool]:
        """The items that leave next, and whether they would fill a batch together with those dropped as too late."""
        loop = asyncio.get_running_loop()
        batch: list[_Waiting[T, R]] = []
        too_late = 0
        while self._waiting and len(batch) < self.max_batch:
            _, waiting = self._waiting.popitem(last=False)
            needed = min(self._foreseen_s(len(batch) + 1), waiting.timeout_s * ALWAYS_SENT_SHARE)
            if waiting.deadline <= loop.time() + needed:
                too_late += 1
            elif not waiting.future.done():
                batch.append(waiting)
        return batch, len(batch) + too_late >= self.max_batch

    async def _run(self, batch: list[_Waiting[T, R]], full: bool) -> None:
        results: Sequence[R | Exception] = [RuntimeError("the batch was cancelled")] * len(batch)
        try:
            async with deadline(max(waiting.deadline for waiting in batch)):
                answered = await self._process([waiting.item for waiting in batch])
            if len(answered) != len(batch):
                raise RuntimeError(f"{len(batch)} messages got {len(answered)} answers")
            results = answered
        except TimeoutError:
            results = [DeadlinePassed()] * len(batch)
        except Exception as error:
            results = [error] * len(batch)
        finally:
            self.in_flight -= 1
            self._travelling -= len(batch)
            self._pace.came_back(len(batch), asyncio.get_running_loop().time(), full)
            self._dispatch()  # first: writing answers can wait, the stages should not
            if not self.in_flight:
                self._pace.forget()
            self._settle(batch, results)

    def _settle(self, batch: list[_Waiting[T, R]], results: Sequence[R | Exception]) -> None:
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, TimeoutError):
                self._expire(waiting.future, waiting.timeout_s)
            elif isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
