"""What the cache does while an inference is on its way, and when one fails."""

import asyncio
from contextvars import ContextVar

import numpy as np
import pytest

from deployments.cache import CacheConfig, Learned, PredictionCache
from deployments.protocol import WITHIN_S, DependencyError, LogitBatch, TokenBatch
from tests.unit.gate import Gate
from tests.unit.tokens import Classifier, answer, lists, logits, tokens
from tests.unit.virtual_time import run

Gated = Gate[TokenBatch, LogitBatch]
caller: ContextVar[str] = ContextVar("caller", default="nobody")


async def test_equal_texts_in_one_batch_share_an_inference() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier)
    batch = await cache(tokens("v", [1], [2], [1], [1]))
    assert classifier.batches == [[[1], [2]]]
    assert np.array_equal(batch.logits, logits("v", [1], [2], [1], [1]))
    assert batch.cached.tolist() == [False] * 4
    assert (cache.misses, cache.shared) == (2, 2)


async def test_equal_texts_in_concurrent_batches_share_an_inference() -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    first = asyncio.ensure_future(cache(tokens("v", [1], [2])))
    second = asyncio.ensure_future(cache(tokens("v", [2], [3])))
    ones, twos = await classify.next(), await classify.next()
    assert [lists(ones.argument), lists(twos.argument)] == [[[1], [2]], [[3]]]
    twos.answer.set_result(answer(twos.argument))
    ones.answer.set_result(answer(ones.argument))
    assert np.array_equal((await first).logits, logits("v", [1], [2]))
    assert np.array_equal((await second).logits, logits("v", [2], [3]))
    assert classify.empty
    assert cache.shared == 1


async def test_a_failed_inference_is_told_and_not_stored_while_hits_are_answered() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier)
    await cache(tokens("v", [1]))
    classifier.failure = OSError("secret path")
    batch = await cache(tokens("v", [2], [1], [2]))
    assert batch.cached.tolist() == [False, True, False]
    assert np.isnan(batch.logits).all(axis=1).tolist() == [True, False, True]
    assert np.array_equal(batch.logits[1:2], logits("v", [1]))
    assert batch.failure == "classifier: OSError"
    assert len(cache) == 1
    classifier.failure = None
    assert np.array_equal((await cache(tokens("v", [2]))).logits, logits("v", [2]))


async def test_a_failure_reaches_every_batch_that_shares_the_inference() -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    tasks = [asyncio.ensure_future(cache(tokens("v", [1]))) for _ in range(2)]
    (await classify.next()).answer.set_exception(OSError())
    for batch in await asyncio.gather(*tasks):
        assert batch.failure == "classifier: OSError"
        assert len(batch.cached) == 1
        assert batch.logits.size == 0
    assert classify.empty


async def test_a_failure_of_one_batch_leaves_the_other_alone() -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    doomed = asyncio.ensure_future(cache(tokens("v", [1])))
    mixed = asyncio.ensure_future(cache(tokens("v", [1], [2])))
    ones, twos = await classify.next(), await classify.next()
    ones.answer.set_exception(OSError())
    twos.answer.set_result(answer(twos.argument))
    assert (await doomed).failure == (await mixed).failure == "classifier: OSError"
    assert np.isnan((await mixed).logits[0]).all()
    assert np.array_equal((await mixed).logits[1:], logits("v", [2]))


@pytest.mark.parametrize("leaves", [0, 1])
async def test_a_caller_that_leaves_does_not_take_the_shared_inference_along(leaves: int) -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    tasks = [asyncio.ensure_future(cache(tokens("v", [1]))) for _ in range(2)]
    held = await classify.next()
    gone, stays = tasks[leaves], tasks[1 - leaves]
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert not held.answer.cancelled()
    held.answer.set_result(answer(held.argument))
    assert np.array_equal((await stays).logits, logits("v", [1]))
    assert (await cache(tokens("v", [1]))).cached.tolist() == [True]


async def test_a_cancelled_inference_fails_those_who_share_it_and_the_next_call_asks_again() -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    owner, sharer = (asyncio.ensure_future(cache(tokens("v", [1]))) for _ in range(2))
    (await classify.next()).answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert (await sharer).failure == "classifier: cancelled"
    again = asyncio.ensure_future(cache(tokens("v", [1])))
    held = await classify.next()
    held.answer.set_result(answer(held.argument))
    assert np.array_equal((await again).logits, logits("v", [1]))


@pytest.mark.parametrize("rows", [0, 1, 3])
async def test_a_wrong_number_of_rows_is_a_failure_and_the_next_call_asks_again(rows: int) -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify)
    batch = asyncio.ensure_future(cache(tokens("v", [1], [2])))
    (await classify.next()).answer.set_result(answer(tokens("v", *[[9]] * rows)))
    assert (await batch).failure == "classifier: ValueError"
    assert len(cache) == 0
    again = asyncio.ensure_future(cache(tokens("v", [1], [2])))
    held = await classify.next()
    held.answer.set_result(answer(held.argument))
    assert np.array_equal((await again).logits, logits("v", [1], [2]))


async def test_a_disabled_cache_tells_of_a_failure_in_the_same_way() -> None:
    classifier = Classifier()
    classifier.failure = OSError()
    cache = PredictionCache(classifier, CacheConfig(enabled=False))
    batch = await cache(tokens("v", [1], [2]))
    assert batch.failure == "classifier: OSError"
    assert batch.cached.tolist() == [False, False]
    assert batch.logits.size == 0


async def test_what_the_classifier_says_of_its_failure_is_kept() -> None:
    """A `DependencyError` is written for clients; other errors may name paths and hosts."""
    classifier = Classifier()
    classifier.failure = DependencyError("Classifier: ActorDiedError")
    batch = await PredictionCache(classifier)(tokens("v", [1]))
    assert batch.failure == "Classifier: ActorDiedError"


async def test_an_inference_belongs_to_none_of_its_callers() -> None:
    """Ray cancels what runs in the context of a request that is cancelled; others may share the inference."""
    seen = []

    async def classify(batch: TokenBatch) -> LogitBatch:
        seen.append(caller.get())
        return answer(batch)

    caller.set("alice")
    await PredictionCache(classify)(tokens("v", [1]))
    assert seen == ["nobody"]


async def test_texts_whose_inference_hangs_fail_and_may_be_asked_again() -> None:
    classify: Gated = Gate()
    cache = PredictionCache(classify, timeout_s=0.01)
    first = await cache(tokens("v", [1]))
    assert first.late == {0}
    assert (await classify.next()).answer.cancelled()
    cache._timeout_s = 60.0
    again = asyncio.ensure_future(cache(tokens("v", [1])))
    held = await classify.next()
    held.answer.set_result(answer(held.argument))
    assert np.array_equal((await again).logits, logits("v", [1]))


class Hanging:
    """A classifier that answers only after some seconds, or never."""

    def __init__(self, seconds: float = 3600.0) -> None:
        self.seconds, self.calls = seconds, 0

    async def __call__(self, batch: TokenBatch) -> LogitBatch:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        return answer(batch)


def test_what_is_known_is_answered_beside_a_classifier_that_hangs() -> None:
    async def both() -> tuple[LogitBatch, float]:
        cache, loop = PredictionCache(Hanging()), asyncio.get_running_loop()
        await cache(Learned([(tokens("v", [1]), logits("v", [1]))]))
        return await cache(tokens("v", [2], [1])), loop.time()

    batch, took_s = run(both())
    assert took_s == pytest.approx(WITHIN_S)
    assert (batch.late, batch.failure) == (frozenset({0}), None)
    assert batch.cached.tolist() == [False, True]
    assert np.isnan(batch.logits[0]).all()
    assert np.array_equal(batch.logits[1:], logits("v", [1]))


def test_an_inference_that_nobody_waits_for_any_more_is_kept() -> None:
    async def twice() -> tuple[LogitBatch, LogitBatch, int]:
        classify = Hanging(3.0)
        cache = PredictionCache(classify)
        late, again = await cache(tokens("v", [1])), await cache(tokens("v", [1]))
        return late, again, classify.calls

    late, again, calls = run(twice())
    assert late.late == {0}
    assert np.array_equal(again.logits, logits("v", [1]))
    assert calls == 1


def test_without_a_cache_no_batch_waits_longer_either() -> None:
    async def off() -> LogitBatch:
        return await PredictionCache(Hanging(), CacheConfig(enabled=False))(tokens("v", [1]))

    assert run(off()).late == {0}


async def test_what_is_learned_while_an_inference_is_on_its_way_is_counted_once() -> None:
    classify: Gated = Gate()
    cache, alone = PredictionCache(classify), PredictionCache(Classifier())
    asked = asyncio.ensure_future(cache(tokens("v", [1])))
    held = await classify.next()
    await cache(Learned([(tokens("v", [1]), logits("v", [1]))]))
    held.answer.set_result(answer(held.argument))
    await asked
    await alone(tokens("v", [1]))
    assert (len(cache), cache.bytes) == (1, alone.bytes)
