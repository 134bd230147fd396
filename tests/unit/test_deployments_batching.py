import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from deployments.batching import NaturalBatcher, QueueFull
from tests.unit.gate import Gate

Process = Gate[Sequence[int], Sequence[str | Exception]]
FOREVER = 1000.0
caller: ContextVar[str] = ContextVar("caller", default="nobody")


def batcher(process: Process, **limits: int) -> NaturalBatcher[int, str]:
    return NaturalBatcher(process, **limits)


def submit(to: NaturalBatcher[int, str], *items: int, timeout_s: float = FOREVER) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(to.submit(item, timeout_s)) for item in items]


async def shed(to: NaturalBatcher[int, str]) -> None:
    """Know that the queue is full, so that all who were to wait in it have come."""
    [task] = submit(to, -1)
    with pytest.raises(QueueFull, match=f"{to.max_queue} messages are waiting"):
        await task


def replies(items: Sequence[int]) -> list[str | Exception]:
    return [f"reply to {item}" for item in items]


async def test_a_lone_item_leaves_at_once_and_alone() -> None:
    process: Process = Gate()
    [task] = submit(batcher(process), 1)
    held = await process.next()
    assert held.argument == [1]
    held.answer.set_result(["one"])
    assert await task == "one"


async def test_items_of_one_moment_travel_together() -> None:
    process: Process = Gate()
    tasks = submit(batcher(process), 1, 2, 3)
    held = await process.next()
    assert held.argument == [1, 2, 3]
    held.answer.set_result(["one", "two", "three"])
    assert await asyncio.gather(*tasks) == ["one", "two", "three"]


async def test_the_next_batch_takes_all_that_wait_up_to_max_batch() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_batch=3)
    tasks = submit(to, 0)
    held = await process.next()
    tasks += submit(to, 1, 2, 3, 4, 5)
    sizes = []
    for _ in range(3):
        held.answer.set_result(replies(held.argument))
        sizes.append(list(held.argument))
        if len(sizes) < 3:
            held = await process.next()
    assert sizes == [[0], [1, 2, 3], [4, 5]]
    assert await asyncio.gather(*tasks) == replies(range(6))
    assert to.counts() == {"batches_total": 3, "batched_messages_total": 6, "shed_total": 0, "expired_total": 0}


async def test_the_next_batch_leaves_before_the_answers_of_the_last_are_written() -> None:
    seen: list[str] = []

    async def process(items: Sequence[int]) -> list[str]:
        seen.append(f"batch {items}")
        await asyncio.sleep(0)
        return [str(item) for item in items]

    async def client(item: int) -> None:
        seen.append(f"answer {await to.submit(item, FOREVER)}")

    to: NaturalBatcher[int, str] = NaturalBatcher(process, max_in_flight=1, max_batch=2)
    await asyncio.gather(*(client(item) for item in range(4)))
    assert seen == ["batch [0, 1]", "batch [2, 3]", "answer 0", "answer 1", "answer 2", "answer 3"]


async def test_no_more_than_max_in_flight_batches_are_out() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=2, max_batch=1)
    tasks = submit(to, 1, 2, 3)
    first, second = await process.next(), await process.next()
    assert process.empty
    assert to.levels() == {"queue_length": 1, "batches_in_flight": 2}
    assert to.strained
    second.answer.set_result(["two"])
    third = await process.next()
    assert third.argument == [3]
    assert not tasks[0].done()
    first.answer.set_result(["one"])
    third.answer.set_result(["three"])
    assert await asyncio.gather(*tasks) == ["one", "two", "three"]
    assert to.levels() == {"queue_length": 0, "batches_in_flight": 0}
    assert not to.strained


async def test_cancelled_callers_are_dropped_and_the_rest_of_the_batch_is_answered() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_queue=3)
    travelling = submit(to, 1, 2)
    held = await process.next()
    waiting = submit(to, 3, 4, 5)
    await shed(to)
    for task in (travelling[0], waiting[0]):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    held.answer.set_result(["one", "two"])
    assert await travelling[1] == "two"
    held = await process.next()
    assert held.argument == [4, 5]
    held.answer.set_result(["four", "five"])
    assert await asyncio.gather(*waiting[1:]) == ["four", "five"]


async def test_a_caller_that_leaves_in_the_very_moment_of_departure_is_dropped() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_queue=2)
    tasks = submit(to, 1)
    held = await process.next()
    tasks += submit(to, 2, 3)
    await shed(to)
    held.answer.set_result(["one"])
    tasks[1].cancel()
    held = await process.next()
    assert held.argument == [3]
    held.answer.set_result(["three"])
    assert list(await asyncio.gather(tasks[0], tasks[2])) == ["one", "three"]


async def test_a_cancelled_caller_frees_its_place_in_the_queue() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_queue=1)
    tasks = submit(to, 1)
    held = await process.next()
    [gone] = submit(to, 2)
    await shed(to)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    tasks += submit(to, 3)
    held.answer.set_result(["one"])
    held = await process.next()
    held.answer.set_result(["three"])
    assert await asyncio.gather(*tasks) == ["one", "three"]


async def test_a_full_queue_sheds_at_once_and_keeps_those_that_wait() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_queue=2)
    tasks = submit(to, 1)
    held = await process.next()
    tasks += submit(to, 2, 3)
    await shed(to)
    assert to.shed == 1
    held.answer.set_result(["one"])
    held = await process.next()
    held.answer.set_result(replies(held.argument))
    assert await asyncio.gather(*tasks) == ["one", "reply to 2", "reply to 3"]


async def test_limits_may_change_while_items_wait() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_batch=1)
    tasks = submit(to, 1)
    held = await process.next()
    tasks += submit(to, 2, 3, 4)
    to.max_batch = 2
    held.answer.set_result(["one"])
    held = await process.next()
    assert held.argument == [2, 3]
    held.answer.set_result(replies(held.argument))
    held = await process.next()
    held.answer.set_result(replies(held.argument))
    assert await asyncio.gather(*tasks) == ["one", *replies([2, 3, 4])]


async def test_a_batch_belongs_to_none_of_its_callers() -> None:
    """Ray cancels what runs in the context of a request that is cancelled; others travel in the same batch."""

    async def process(items: Sequence[int]) -> Sequence[str | Exception]:
        return [caller.get()] * len(items)

    to: NaturalBatcher[int, str] = NaturalBatcher(process)
    caller.set("alice")
    assert await to.submit(1, FOREVER) == "nobody"
