"""New texts go past the cache, which learns of them; answers are the same on both ways."""

import asyncio
import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.breaker import CircuitBreaker
from deployments.cache import CacheConfig, Learned, PredictionCache
from deployments.cache_bypass import CACHE_BREAKER, MAX_TELLING, MIN_BLAME_S, CacheBypass
from deployments.deadline import STAGE_SHARE
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from tests.unit.gate import Gate
from tests.unit.tokens import Classifier, answer, logits, tokens
from tests.unit.virtual_time import run

ROWS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4)


class World:
    """A cache and the way past it, each with a classifier of its own."""

    def __init__(self, few_tokens: int = 4, entries: int = 100, config: CacheConfig | None = None) -> None:
        self.behind, self.straight = Classifier(), Classifier()
        self.cache = PredictionCache(self.behind, config)
        self.bypass = CacheBypass(self.cache, self.straight, few_tokens, entries)


async def test_a_new_text_goes_straight_and_is_then_found_in_the_cache() -> None:
    world = World()
    first = await world.bypass(tokens("v", [1, 2]))
    second = await world.bypass(tokens("v", [1, 2]))
    assert world.straight.batches == [[[1, 2]]]
    assert world.behind.batches == []
    assert [first.cached.tolist(), second.cached.tolist()] == [[False], [True]]
    assert np.array_equal(first.logits, logits("v", [1, 2]))
    assert np.array_equal(second.logits, first.logits)
    assert set(first.milliseconds) == {"classify", "inference"}
    assert world.bypass.counts() == {"cache_passed_total": 1}
    assert world.cache.counts()["cache_misses_total"] == 0


async def test_the_cache_learns_without_being_asked() -> None:
    world = World()
    await world.bypass(tokens("v", [1]))
    await world.bypass(tokens("w", [1], [2]))
    async with asyncio.timeout(60):
        while len(world.cache) < 3:
            await asyncio.to_thread(lambda: None)
    found = await world.cache(tokens("w", [2], [1]))
    assert found.cached.tolist() == [True, True]
    assert np.array_equal(found.logits, logits("w", [2], [1]))


async def test_many_tokens_and_known_texts_go_through_the_cache() -> None:
    world = World(few_tokens=4)
    await world.bypass(tokens("v", [1, 2, 3, 4, 5]))
    await world.bypass(tokens("v", [1], [1, 2, 3, 4, 5]))
    await world.bypass(tokens("v", [1]))
    assert world.straight.batches == []
    assert world.behind.batches == [[[1, 2, 3, 4, 5]], [[1]]]


async def test_new_texts_follow_a_batch_that_is_on_its_way_through_the_cache() -> None:
    gate: Gate[TokenBatch | Learned, LogitBatch] = Gate()
    straight = Classifier()
    bypass = CacheBypass(gate, straight, few_tokens=2)
    first = asyncio.ensure_future(bypass(tokens("v", [1, 2, 3])))
    held = [await gate.next()]
    second = asyncio.ensure_future(bypass(tokens("v", [4])))
    held.append(await gate.next())
    assert straight.batches == []
    for call in held:
        assert isinstance(call.argument, TokenBatch)
        call.answer.set_result(answer(call.argument))
    assert np.array_equal((await first).logits, logits("v", [1, 2, 3]))
    assert np.array_equal((await second).logits, logits("v", [4]))
    await bypass(tokens("v", [5]))
    assert straight.batches == [[[5]]]


async def test_versions_do_not_know_of_each_other() -> None:
    world = World()
    await world.bypass(tokens("v", [1]))
    other = await world.bypass(tokens("w", [1]))
    assert np.array_equal(other.logits, logits("w", [1]))
    assert len(world.straight.batches) == 2


async def test_the_oldest_texts_are_forgotten() -> None:
    world = World(entries=2)
    for text in ([1], [2], [3], [1], [4], [5], [6], [2]):
        await world.bypass(tokens("v", text))
    assert world.straight.batches == [[[1]], [[2]], [[3]], [[4]], [[5]], [[6]], [[2]]]


@given(st.lists(ROWS, max_size=8), st.integers(1, 6), st.integers(0, 8))
async def test_every_answer_is_the_classifiers(batches: list[list[list[int]]], entries: int, few: int) -> None:
    world = World(few_tokens=few, entries=entries)
    for rows in batches:
        answered = await world.bypass(tokens("v", *rows))
        assert np.array_equal(answered.logits, logits("v", *rows))
        assert answered.failure is None


async def test_a_classifier_that_has_gone_is_asked_through_the_cache() -> None:
    world = World()
    world.straight.failure = DependencyError("Classifier: ActorDiedError")
    answered = await world.bypass(tokens("v", [1]))
    assert np.array_equal(answered.logits, logits("v", [1]))
    assert world.bypass.counts() == {"cache_passed_total": 0}
    world.behind.failure = DependencyError("Classifier: ActorDiedError")
    refused = await world.bypass(tokens("v", [2]))
    assert refused.failure == "Classifier: ActorDiedError"


async def test_a_cache_that_has_gone_is_done_without() -> None:
    straight = Classifier()

    async def gone(batch: TokenBatch | Learned) -> LogitBatch:
        raise DependencyError("PredictionCache: its replica has gone")

    bypass = CacheBypass(gone, straight, few_tokens=2)
    for rows in ([[1]], [[1]], [[1], [2], [3]]):
        assert np.array_equal((await bypass(tokens("v", *rows))).logits, logits("v", *rows))
    straight.failure = ZeroDivisionError("with a stack trace")
    with pytest.raises(DependencyError, match=r"^classifier: ZeroDivisionError$"):
        await bypass(tokens("v", [1]))
    with pytest.raises(DependencyError, match="the cache does not answer"):
        await bypass(tokens("v", [4]))


async def test_a_cache_that_hangs_holds_up_one_batch_and_no_more() -> None:
    gate: Gate[TokenBatch | Learned, LogitBatch] = Gate()
    straight = Classifier()
    bypass = CacheBypass(gate, straight, few_tokens=1, learn_after_s=3600)
    for rows in ([[1, 2]], [[1, 2]], [[3]], [[3]]):
        batch = replace(tokens("v", *rows), within_s=MIN_BLAME_S)
        assert np.array_equal((await bypass(batch)).logits, logits("v", *rows))
    assert (await gate.next()).answer.cancelled()
    assert gate.empty
    assert straight.batches == [[[1, 2]], [[1, 2]], [[3]], [[3]]]


async def test_a_cache_that_answers_a_trial_is_used_again() -> None:
    world, now, gone = World(few_tokens=0), 0.0, True

    async def cache(batch: TokenBatch | Learned) -> LogitBatch:
        if gone:
            raise DependencyError("PredictionCache: its replica has gone")
        return await world.cache(batch)

    bypass = CacheBypass(cache, world.straight, few_tokens=0, learn_after_s=3600)
    bypass._breaker = CircuitBreaker(CACHE_BREAKER, lambda: now)
    for text in range(2):
        await bypass(tokens("v", [text]))
    gone, now = False, CACHE_BREAKER.pause_s
    for text in range(2, 5):
        await bypass(tokens("v", [text]))
    assert (world.straight.batches, world.behind.batches) == ([[[0]], [[1]]], [[[2]], [[3]], [[4]]])


async def test_equal_texts_in_a_batch_share_an_inference() -> None:
    world = World()
    await world.bypass(tokens("v", [1], [1]))
    assert (world.straight.batches, world.behind.batches) == ([], [[[1]]])


async def test_a_cache_that_is_switched_off_learns_nothing() -> None:
    world = World(config=CacheConfig(enabled=False))
    await world.bypass(tokens("v", [1]))
    again = await world.bypass(tokens("v", [1]))
    assert again.cached.tolist() == [False]
    assert len(world.cache) == 0


async def test_what_the_cache_knows_already_keeps_its_age() -> None:
    now = 0.0
    cache = PredictionCache(Classifier(), CacheConfig(ttl_s=10), lambda: now)
    known = answer(tokens("v", [1]))
    await cache(Learned([(tokens("v", [1]), known.logits)]))
    now = 9.0
    await cache(Learned([(tokens("v", [1]), known.logits + 1)]))
    assert np.array_equal((await cache(tokens("v", [1]))).logits, known.logits)
    now = 11.0
    assert (await cache(tokens("v", [1]))).cached.tolist() == [False]


async def test_what_has_expired_is_learned_anew() -> None:
    times = iter([0.0, 11.0, 12.0, 13.0, 14.0])
    cache = PredictionCache(Classifier(), CacheConfig(ttl_s=10), lambda: next(times))
    for _ in range(2):
        await cache(Learned([(tokens("v", [1]), logits("v", [1]))]))
    assert (await cache(tokens("v", [1]))).cached.tolist() == [True]


async def test_a_cache_that_does_not_keep_up_is_told_no_more() -> None:
    """Until what is on its way has failed or arrived; what nobody took is forgotten."""
    gate: Gate[TokenBatch | Learned, LogitBatch] = Gate()
    bypass = CacheBypass(gate, Classifier(), learn_after_s=0)

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def learn(texts: range) -> None:
        for text in texts:
            await bypass(tokens("v", [text]))
            await turns()

    await learn(range(MAX_TELLING + 3))
    held = [await gate.next() for _ in range(MAX_TELLING)]
    assert gate.empty
    assert all(isinstance(call.argument, Learned) for call in held)
    held.pop().answer.set_exception(DependencyError("gone"))
    await turns()
    await learn(range(10, 12))
    told = (await gate.next()).argument
    assert isinstance(told, Learned)
    assert [row.tolist() for batch, _ in told.answers for row in batch.rows()] == [[10]]
    assert gate.empty


@pytest.mark.parametrize(("given_s", "asked"), [(0.5, 1), (0.1, 3)])
def test_a_cache_that_batches_give_up_on_is_left_alone_unless_they_had_no_time(given_s: float, asked: int) -> None:
    calls = 0

    async def hangs(batch: TokenBatch | Learned) -> LogitBatch:
        nonlocal calls
        calls += isinstance(batch, TokenBatch)
        await asyncio.sleep(3600)
        raise AssertionError

    async def three() -> None:
        bypass = CacheBypass(hangs, Classifier(), few_tokens=0)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(given_s):
                    await bypass(replace(tokens("v", [1]), within_s=given_s * STAGE_SHARE))

    run(three())
    assert calls == asked


@pytest.mark.parametrize("deadline_s", [0.5, 1.0, 1.6, 2.0, 10.0])
def test_a_classifier_that_hangs_is_not_laid_at_the_cache_s_door(deadline_s: float) -> None:
    async def hangs(batch: TokenBatch) -> LogitBatch:
        await asyncio.sleep(3600)
        raise AssertionError

    async def known_and_new() -> list[LogitBatch]:
        cache = PredictionCache(hangs)
        await cache(Learned([(tokens("v", [1]), logits("v", [1]))]))
        bypass, within_s = CacheBypass(cache, hangs, few_tokens=0), deadline_s * STAGE_SHARE
        return [await bypass(replace(tokens("v", row), within_s=within_s)) for row in ([1], [2], [1], [3], [1])]

    answers = run(known_and_new())
    assert [batch.late for batch in answers] == [set(), {0}, set(), {0}, set()]
