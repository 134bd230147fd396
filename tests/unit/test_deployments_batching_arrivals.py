import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from deployments.batching import NaturalBatcher

FOREVER = 1000.0


async def turns(n: int) -> None:
    """Let n turns of the event loop pass, so that the arrivals interleave in many ways."""
    for _ in range(n):
        await asyncio.sleep(0)


class Worker:
    """Answers a batch after some turns of the loop, and notes what it was given."""

    def __init__(self, delays: Sequence[int], failing: set[int]) -> None:
        self.batches: list[list[int]] = []
        self.running = self.most = 0
        self._delays, self._failing = delays, failing

    async def __call__(self, items: Sequence[int]) -> Sequence[str | Exception]:
        number = len(self.batches)
        self.batches.append(list(items))
        self.running += 1
        self.most = max(self.most, self.running)
        await turns(self._delays[number % len(self._delays)])
        self.running -= 1
        if number in self._failing:
            raise OSError(f"batch {number}")
        return [f"reply to {item}" for item in items]


arrivals = st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 8)), min_size=1, max_size=30)
"""For each item, the turn in which it comes, and how many turns its caller waits at the most."""


@given(
    arrivals=arrivals,
    delays=st.lists(st.integers(0, 10), min_size=1, max_size=5),
    failing=st.sets(st.integers(0, 10), max_size=3),
    max_in_flight=st.integers(1, 3),
    max_batch=st.integers(1, 5),
)
async def test_everyone_gets_the_own_answer_whatever_the_arrivals(
    arrivals: list[tuple[int, int | None]], delays: list[int], failing: set[int], max_in_flight: int, max_batch: int
) -> None:
    worker = Worker(delays, failing)
    to: NaturalBatcher[int, str] = NaturalBatcher(worker, max_in_flight=max_in_flight, max_batch=max_batch)
    submitted: list[int] = []

    async def arrive(item: int, turn: int) -> str:
        await turns(turn)
        submitted.append(item)
        return await to.submit(item, FOREVER)

    async def leave(task: asyncio.Task[str], turn: int) -> None:
        await turns(turn)
        task.cancel()

    tasks = [asyncio.ensure_future(arrive(item, turn)) for item, (turn, _) in enumerate(arrivals)]
    leavers = [leave(tasks[i], turn + patience) for i, (turn, patience) in enumerate(arrivals) if patience is not None]
    await asyncio.gather(*leavers)
    results = await asyncio.gather(*tasks, return_exceptions=True)

    sent = [item for batch in worker.batches for item in batch]
    assert sent == [item for item in submitted if item in set(sent)], "first come, first served, and never twice"
    assert all(1 <= len(batch) <= max_batch for batch in worker.batches)
    assert worker.most <= max_in_flight
    failed = {item for number in failing if number < len(worker.batches) for item in worker.batches[number]}
    for item, result in enumerate(results):
        if isinstance(result, asyncio.CancelledError):
            assert arrivals[item][1] is not None
        elif item in failed:
            assert isinstance(result, OSError)
        else:
            assert result == f"reply to {item}"
    assert len(to) == 0
