"""What is left of a batch's time reaches the stages, however they are called."""

import asyncio

import pytest

from deployments.batching import NaturalBatcher
from deployments.deadline import STAGE_SHARE, DeadlinePassed, deadline, within_s
from tests.unit.virtual_time import VirtualTimeLoop, run


def test_without_a_deadline_there_is_another_limit() -> None:
    async def asked() -> float:
        return within_s(1.7)

    assert run(asked()) == 1.7


def test_the_earliest_deadline_counts_and_ends_with_its_block() -> None:
    async def asked() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        async with deadline(10.0):
            async with deadline(2.0), deadline(5.0):
                inner = within_s(1.7)
            outer = within_s(1.7)
            loop.spend(12)
            return [inner, outer, within_s(1.7)]

    assert run(asked()) == pytest.approx([2.0 * STAGE_SHARE, 10.0 * STAGE_SHARE, 0.0])


@pytest.mark.parametrize(("deadline_s", "answered"), [(10.0, True), (2.0, False)])
def test_a_batch_tells_its_stages_how_long_they_may_take(deadline_s: float, answered: bool) -> None:
    async def slow(items: object) -> list[float]:
        told = await asyncio.create_task(_asked_in_a_task())
        async with asyncio.timeout(told):
            await asyncio.sleep(2.5)
        return [told]

    async def one() -> tuple[float, int]:
        batcher: NaturalBatcher[str, float] = NaturalBatcher(slow)
        try:
            return await batcher.submit("hello", deadline_s), batcher.expired
        except DeadlinePassed:
            return 0.0, batcher.expired

    assert run(one()) == ((pytest.approx(deadline_s * STAGE_SHARE), 0) if answered else (0.0, 1))


async def _asked_in_a_task() -> float:
    return within_s(1.7)
