"""More messages than can be answered, in virtual time: as many answers as ever, and a refusal at once for the rest."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from deployments.batching import NaturalBatcher, QueueFull
from deployments.deadline import DeadlinePassed
from deployments.pace import Lag, Refusals
from tests.unit.virtual_time import VirtualTimeLoop, run

PER_SECOND = 600
DEADLINE_S = 2.0
Outcomes = dict[int, Counter[str]]
"""By the second in which a client was told."""


class Stages:
    """Answers some messages a second, a batch at a time; hangs until `hang_until`."""

    def __init__(self, per_second: int = PER_SECOND) -> None:
        self._per_second = per_second
        self._one_at_a_time = asyncio.Lock()
        self.hang_until = 0.0
        self.worked = 0

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        async with self._one_at_a_time:
            self.worked += len(items)
            await asyncio.sleep(max(0.0, self.hang_until - asyncio.get_running_loop().time()))
            await asyncio.sleep(0.002 + len(items) / self._per_second)
        return items


class Offered(NamedTuple):
    """What became of messages."""

    outcomes: Outcomes
    waits: list[float]
    """Seconds, of those that were answered, in that order."""
    stages: Stages

    def total(self, outcome: str) -> int:
        return sum(counts[outcome] for counts in self.outcomes.values())


async def offered(
    phases: Sequence[tuple[float, int]], hang_s: float = 0.0, per_second: int = PER_SECOND, max_in_flight: int = 2
) -> Offered:
    """Offer messages at a rate for some seconds, then at another.

    Args:
        phases: seconds and messages a second.
        hang_s: how long the stages hang in the beginning.
        per_second: messages that the stages can answer.
    """
    loop, outcomes, waits = asyncio.get_running_loop(), defaultdict[int, Counter[str]](Counter), list[float]()
    stages = Stages(per_second)
    stages.hang_until = hang_s
    to: NaturalBatcher[int, int] = NaturalBatcher(stages, max_in_flight=max_in_flight)

    async def client(number: int) -> None:
        came, outcome = loop.time(), "answered"
        try:
            await to.submit(number, DEADLINE_S)
            waits.append(loop.time() - came)
        except QueueFull:
            outcome = "refused"
        except DeadlinePassed:
            outcome = "late"
        outcomes[int(loop.time())][outcome] += 1

    async with asyncio.TaskGroup() as group:
        for seconds, rate in phases:
            for number in range(int(seconds * rate)):
                group.create_task(client(number))
                await asyncio.sleep(1 / rate)
    return Offered(outcomes, waits, stages)


@pytest.mark.parametrize(("rate", "seconds"), [(650, 30), (900, 30), (1500, 30), (4000, 10)])
def test_sustained_overload_leaves_the_answers_a_second_as_they_were(rate: int, seconds: int) -> None:
    found = run(offered([(seconds, rate)]))
    answered = [found.outcomes[second]["answered"] for second in range(seconds)]
    assert min(answered[1:]) > 0.85 * PER_SECOND
    assert found.total("late") < 0.01 * seconds * rate
    assert found.total("refused") > 0
    assert found.stages.worked < 1.02 * found.total("answered")


@pytest.mark.parametrize("rate", [1_200, 6_000])
def test_where_many_are_refused_the_others_wait_no_longer_than_the_queue_needs(rate: int) -> None:
    """Refusing takes time as well, in which messages wait that were not read yet."""
    waits = run(offered([(10, rate)])).waits
    assert max(waits[len(waits) // 2 :]) < 0.5


@pytest.mark.parametrize(("max_in_flight", "per_second"), [(2, 100), (12, 600)])
def test_no_more_is_taken_than_can_be_answered_in_time(max_in_flight: int, per_second: int) -> None:
    """Also where the batches that leave next would take longer."""
    found = run(offered([(20, 2 * per_second)], per_second=per_second, max_in_flight=max_in_flight))
    assert found.total("answered") > 0.7 * 20 * per_second
    assert found.total("late") < 0.2 * found.total("answered")  # those of the beginning, when nobody knows the pace


def test_what_stands_or_falls_together_is_refused_as_a_whole() -> None:
    async def parts() -> Counter[int]:
        to, refused = NaturalBatcher[int, int](Stages()), Counter[int]()

        async def together(size: int) -> None:
            with suppress(QueueFull):
                to.require_room(size, DEADLINE_S)
                found = await asyncio.gather(*(to.submit(n, DEADLINE_S) for n in range(size)), return_exceptions=True)
                refused[sum(isinstance(one, QueueFull) for one in found)] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(20_000):
                group.create_task(together(64 if number % 40 == 0 else 1))
                await asyncio.sleep(1 / 1_000)
        return refused

    assert set(run(parts())) == {0}


@pytest.mark.parametrize(("waited_s", "told_after_s"), [(1.5, 0.5), (2.5, 0.0)])
def test_time_that_an_item_waited_before_counts(waited_s: float, told_after_s: float) -> None:
    async def told() -> float:
        loop, stages = asyncio.get_running_loop(), Stages()
        stages.hang_until = 60.0
        with pytest.raises(DeadlinePassed):
            await NaturalBatcher[int, int](stages).submit(0, DEADLINE_S, waited_s)
        return loop.time()

    assert run(told()) == pytest.approx(told_after_s, abs=0.01)


def test_what_is_old_is_refused_where_others_were_and_taken_where_none_was() -> None:
    """A single stall makes messages old, too, and they can be answered in time."""

    async def before_and_after_an_overload() -> int:
        to: NaturalBatcher[int, int] = NaturalBatcher(Stages())
        before = await to.submit(0, DEADLINE_S, 1.5)
        assert not to.strained
        many = await asyncio.gather(*(to.submit(n, DEADLINE_S) for n in range(3_000)), return_exceptions=True)
        assert any(isinstance(one, QueueFull) for one in many)
        assert (len(to), to.strained) == (0, True)
        with pytest.raises(QueueFull):
            await to.submit(0, DEADLINE_S, 1.5)
        return before + await to.submit(1, DEADLINE_S)

    assert run(before_and_after_an_overload()) == 1


def test_refusals_of_long_ago_do_not_count() -> None:
    refusals = Refusals()
    refusals.note(100, True, 0.0)
    assert refusals.share == 1.0
    refusals.note(300, False, 0.0)
    assert refusals.share == pytest.approx(0.25)
    refusals.note(400, False, 2.0)
    assert refusals.share == pytest.approx(50 / 600)
    refusals.note(1, False, 60.0)
    assert refusals.share == pytest.approx(0.0, abs=1e-6)


def test_below_capacity_nothing_is_refused() -> None:
    outcomes = run(offered([(30, 500)])).outcomes
    assert sum(map(Counter, outcomes.values()), Counter()) == {"answered": 15_000}


def test_a_burst_that_can_be_answered_in_time_is() -> None:
    outcomes = run(offered([(5, 100), (0.1, 7_000), (5, 100)])).outcomes
    assert sum(map(Counter, outcomes.values()), Counter()) == {"answered": 1_700}


def test_after_an_overload_nothing_is_refused_any_more() -> None:
    outcomes = run(offered([(10, 3000), (10, 400)])).outcomes
    assert all(set(outcomes[second]) == {"answered"} for second in range(12, 20))


def test_stages_that_hung_are_found_well_again() -> None:
    outcomes = run(offered([(20, 400)], hang_s=5)).outcomes
    assert all(set(outcomes[second]) == {"answered"} for second in range(8, 20))


@pytest.mark.parametrize(("max_batch", "pause_s"), [(64, 3.0), (1, 2.0)])
def test_time_without_work_is_no_sign_of_slowness(max_batch: int, pause_s: float) -> None:
    """Full batches that are rare, such as bodies of 64 messages, and then a burst that is answered in half a second."""

    async def burst_after_rare_full_batches() -> list[int]:
        to: NaturalBatcher[int, int] = NaturalBatcher(Stages(), max_batch=max_batch)
        for _ in range(3):
            await asyncio.gather(*(to.submit(number, DEADLINE_S) for number in range(max_batch)))
            await asyncio.sleep(pause_s)
        return await asyncio.gather(*(to.submit(number, DEADLINE_S) for number in range(200)))

    assert len(run(burst_after_rare_full_batches())) == 200


def test_a_busy_loop_is_late_and_an_idle_one_is_not() -> None:
    async def busy_then_idle() -> list[float]:
        loop, lag = asyncio.get_running_loop(), Lag()
        assert isinstance(loop, VirtualTimeLoop)
        seen = [lag.seconds(loop)]
        loop.spend(0.4)
        await asyncio.sleep(0.001)
        seen.append(lag.seconds(loop))
        await asyncio.sleep(0.5)
        seen.append(lag.seconds(loop))
        return seen

    assert run(busy_then_idle()) == [0.0, pytest.approx(0.35), pytest.approx(0.0, abs=1e-6)]


@asynccontextmanager
async def a_second_each(max_in_flight: int = 1) -> AsyncIterator[tuple[NaturalBatcher[str, str], list[str]]]:
    """A queue whose items travel alone, a second each, when the last has just left, at 2 s; and what has travelled."""
    travelled: list[str] = []

    async def travel(items: Sequence[str]) -> Sequence[str]:
        travelled.extend(items)
        await asyncio.sleep(1)
        return items

    to: NaturalBatcher[str, str] = NaturalBatcher(travel, max_in_flight=max_in_flight, max_batch=1)
    async with asyncio.TaskGroup() as group:
        for item in "abcde"[: 1 + 2 * max_in_flight]:
            group.create_task(to.submit(item, 10))
        await asyncio.sleep(2.1)
        yield to, travelled


def test_an_item_without_enough_time_left_does_not_travel() -> None:
    async def late() -> list[str]:
        async with a_second_each() as (to, travelled):
            with pytest.raises(DeadlinePassed):
                await to.submit("d", 1.1)
        return travelled

    assert run(late()) == ["a", "b", "c"]


def test_what_travels_counts_when_an_answer_is_foreseen() -> None:
    """One travels, one waits and one comes: three seconds, of which 65 % of a time-out must be enough."""

    async def foreseen() -> None:
        async with a_second_each() as (to, _), asyncio.TaskGroup() as group:
            group.create_task(to.submit("d", 10))
            await asyncio.sleep(0)
            to.require_room(1, 3.1 / 0.65)
            with pytest.raises(QueueFull):
                to.require_room(1, 2.9 / 0.65)

    run(foreseen())


def test_what_fills_the_next_batches_is_taken_however_many_are_refused() -> None:
    async def taken() -> None:
        async with a_second_each(max_in_flight=2) as (to, _):
            for _ in range(20):
                with pytest.raises(QueueFull):
                    to.require_room(5, 1.0)
            to.require_room(2, 10)
            with pytest.raises(QueueFull):
                to.require_room(3, 10)

    run(taken())


def test_a_late_loop_counts_when_an_answer_is_foreseen() -> None:
    """Twice: before an item is read, and before its answer is written."""

    async def foreseen() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        async with a_second_each() as (to, _), asyncio.TaskGroup() as group:
            group.create_task(to.submit("d", 10))
            await asyncio.sleep(0)
            to.require_room(1, 3.1 / 0.65)
            loop.spend(0.25)
            await asyncio.sleep(0.001)
            to.require_room(1, 3.5 / 0.65)
            with pytest.raises(QueueFull):
                to.require_room(1, 3.3 / 0.65)

    run(foreseen())
