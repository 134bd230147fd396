import asyncio
from collections.abc import Sequence

import pytest

from deployments.batching import NaturalBatcher
from deployments.deadline import DeadlinePassed
from tests.unit.gate import Gate

Process = Gate[Sequence[int], Sequence[str | Exception]]
FOREVER = 1000.0


def batcher(process: Process, **limits: int) -> NaturalBatcher[int, str]:
    return NaturalBatcher(process, **limits)


def submit(to: NaturalBatcher[int, str], *items: int, timeout_s: float = FOREVER) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(to.submit(item, timeout_s)) for item in items]


async def outcomes(tasks: Sequence[asyncio.Task[str]]) -> list[str | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_exception_fails_its_batch_only() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_batch=2)
    tasks = submit(to, 1, 2, 3)
    failure = OSError("no answer")
    (await process.next()).answer.set_exception(failure)
    (await process.next()).answer.set_result(["three"])
    assert await outcomes(tasks) == [failure, failure, "three"]


async def test_an_exception_for_one_item_fails_that_item_only() -> None:
    process: Process = Gate()
    to = batcher(process)
    tasks = submit(to, 1, 2, 3)
    failure = ValueError("two")
    (await process.next()).answer.set_result(["one", failure, "three"])
    assert await outcomes(tasks) == ["one", failure, "three"]


@pytest.mark.parametrize("answers", [[], ["one"], ["one", "two", "three"]])
async def test_a_wrong_number_of_answers_gives_nobody_the_answer_of_another(answers: list[str]) -> None:
    process: Process = Gate()
    to = batcher(process)
    tasks = submit(to, 1, 2)
    (await process.next()).answer.set_result(answers)
    for task in tasks:
        with pytest.raises(RuntimeError, match=f"2 messages got {len(answers)} answers"):
            await task


async def test_a_cancelled_batch_fails_its_callers_and_makes_room() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1, max_batch=1)
    tasks = submit(to, 1, 2)
    (await process.next()).answer.cancel()
    (await process.next()).answer.set_result(["two"])
    with pytest.raises(RuntimeError, match="the batch was cancelled"):
        await tasks[0]
    assert await tasks[1] == "two"


async def test_an_item_that_expires_in_the_queue_never_reaches_process() -> None:
    process: Process = Gate()
    to = batcher(process, max_in_flight=1)
    tasks = submit(to, 1)
    held = await process.next()
    with pytest.raises(DeadlinePassed, match="no answer within 1 ms"):
        await to.submit(2, 0.001)
    tasks += submit(to, 3)
    held.answer.set_result(["one"])
    held = await process.next()
    assert held.argument == [3]
    held.answer.set_result(["three"])
    assert await asyncio.gather(*tasks) == ["one", "three"]
    assert to.expired == 1


async def test_an_item_past_its_deadline_is_not_sent_even_before_its_timer_rings() -> None:
    process: Process = Gate()
    to = batcher(process)
    late, timely = submit(to, 1, timeout_s=0.0)[0], submit(to, 2)[0]
    held = await process.next()
    assert held.argument == [2]
    with pytest.raises(DeadlinePassed):
        await late
    held.answer.set_result(["two"])
    assert await timely == "two"


async def test_an_item_that_expires_on_its_way_leaves_the_others_alone() -> None:
    process: Process = Gate()
    to = batcher(process)
    late, timely = submit(to, 1, timeout_s=0.5)[0], submit(to, 2)[0]
    held = await process.next()
    assert held.argument == [1, 2]
    with pytest.raises(DeadlinePassed):
        await late
    held.answer.set_result(["one", "two"])
    assert await timely == "two"
    assert to.expired == 1


async def test_what_ends_with_a_time_out_of_the_stages_counts_as_expired() -> None:
    process: Process = Gate()
    to = batcher(process)
    tasks = submit(to, 1, 2)
    (await process.next()).answer.set_exception(TimeoutError())
    for outcome in await outcomes(tasks):
        assert isinstance(outcome, DeadlinePassed)
    assert to.counts()["expired_total"] == 2


async def test_a_batch_that_hangs_ends_with_its_last_deadline_and_makes_room() -> None:
    hung: list[asyncio.Future[None]] = []

    async def process(items: Sequence[str]) -> list[str]:
        if items == ["known"]:
            return ["answer"]
        hung.append(asyncio.get_running_loop().create_future())
        await hung[-1]
        return []

    queue: NaturalBatcher[str, str] = NaturalBatcher(process, max_in_flight=1)
    new = asyncio.ensure_future(queue.submit("new", 1.0))
    while not hung:
        await asyncio.to_thread(lambda: None)
    known = await queue.submit("known", FOREVER)
    with pytest.raises(DeadlinePassed):
        await new
    assert (known, queue.in_flight) == ("answer", 0)
    assert [future.cancelled() for future in hung] == [True]
