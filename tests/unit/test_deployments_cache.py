import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.cache import CacheConfig, PredictionCache
from deployments.protocol import LogitBatch, TokenBatch
from models.context import Floats
from tests.unit.tokens import Classifier, answer, logits, tokens


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_text_is_a_miss_and_then_a_hit_with_the_same_logits() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier)
    first = await cache(tokens("v", [1, 2], [3]))
    second = await cache(tokens("v", [3], [1, 2], [4]))
    assert first.cached.tolist() == [False, False]
    assert second.cached.tolist() == [True, True, False]
    assert np.array_equal(first.logits, logits("v", [1, 2], [3]))
    assert np.array_equal(second.logits, logits("v", [3], [1, 2], [4]))
    assert classifier.batches == [[[1, 2], [3]], [[4]]]
    assert first.failure is second.failure is None
    assert cache.counts() == {
        "cache_hits_total": 2, "cache_misses_total": 3, "cache_shared_total": 0, "cache_evicted_total": 0
    }  # fmt: skip


async def test_a_batch_of_hits_asks_nobody() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier)
    missed = await cache(tokens("v", [1]))
    hit = await cache(tokens("v", [1]))
    assert len(classifier.batches) == 1
    assert set(missed.milliseconds) == {"classify", "inference"}
    assert hit.milliseconds == {}


async def test_versions_share_nothing() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier)
    await cache(tokens("a", [1]))
    other = await cache(tokens("b", [1]))
    assert other.version == "b"
    assert other.cached.tolist() == [False]
    assert np.array_equal(other.logits, logits("b", [1]))


async def test_an_entry_is_safe_from_what_a_caller_does_with_its_answer() -> None:
    cache = PredictionCache(Classifier())
    first = await cache(tokens("v", [1]))
    first.logits[:] = 0
    second = await cache(tokens("v", [1]))
    second.logits[:] = 0
    third = await cache(tokens("v", [1]))
    assert np.array_equal(third.logits, logits("v", [1]))


async def test_memory_is_bounded_and_the_least_recently_used_text_goes_first() -> None:
    cache = PredictionCache(Classifier())
    await cache(tokens("v", [1]))
    one = cache.bytes
    cache.config = CacheConfig(max_bytes=3 * one)
    await cache(tokens("v", [2], [3]))
    await cache(tokens("v", [1]))
    await cache(tokens("v", [4]))
    assert cache.levels() == {"cache_bytes": 3 * one, "cache_entries": 3}
    assert cache.evicted == 1
    again = await cache(tokens("v", [1], [3], [4], [2]))
    assert again.cached.tolist() == [True, True, True, False]


async def test_a_cache_without_room_still_answers() -> None:
    cache = PredictionCache(Classifier(), CacheConfig(max_bytes=0))
    for _ in range(2):
        batch = await cache(tokens("v", [1], [2]))
        assert batch.cached.tolist() == [False, False]
        assert np.array_equal(batch.logits, logits("v", [1], [2]))
    assert cache.levels() == {"cache_bytes": 0, "cache_entries": 0}


async def test_an_entry_expires() -> None:
    clock = Clock()
    cache = PredictionCache(Classifier(), CacheConfig(ttl_s=10), clock)
    await cache(tokens("v", [1]))
    before = cache.levels()
    clock.now = 10.0
    assert (await cache(tokens("v", [1]))).cached.tolist() == [True]
    clock.now = 10.1
    assert (await cache(tokens("v", [1]))).cached.tolist() == [False]
    clock.now = 20.1
    assert (await cache(tokens("v", [1]))).cached.tolist() == [True], "the new entry has a time of its own"
    assert cache.levels() == before


async def test_an_entry_keeps_no_more_in_memory_than_it_counts() -> None:
    answers: list[weakref.ref[Floats]] = []

    async def classify(batch: TokenBatch) -> LogitBatch:
        answered = answer(batch)
        assert answered.logits.base is None
        answers.append(weakref.ref(answered.logits))
        return answered

    cache = PredictionCache(classify)
    await cache(tokens("v", [1], [2]))
    gc.collect()
    assert len(cache) == 2
    assert answers[0]() is None, "the batch of which it was a row is gone"


async def test_clear_forgets() -> None:
    cache = PredictionCache(Classifier())
    await cache(tokens("v", [1]))
    cache.clear()
    assert cache.levels() == {"cache_bytes": 0, "cache_entries": 0}
    assert (await cache(tokens("v", [1]))).cached.tolist() == [False]


async def test_a_disabled_cache_passes_everything_on() -> None:
    classifier = Classifier()
    cache = PredictionCache(classifier, CacheConfig(enabled=False))
    for _ in range(2):
        batch = await cache(tokens("v", [1], [1]))
        assert batch.cached.tolist() == [False, False]
        assert np.array_equal(batch.logits, logits("v", [1], [1]))
    assert classifier.batches == [[[1], [1]], [[1], [1]]]
    assert cache.levels() == {"cache_bytes": 0, "cache_entries": 0}
    assert cache.misses == 4


async def test_what_is_kept_comes_within_new_limits_at_once() -> None:
    clock = Clock()
    cache = PredictionCache(Classifier(), CacheConfig(ttl_s=100), clock)
    await cache(tokens("v", [1], [2], [3]))
    one = cache.bytes // 3
    cache.configure(CacheConfig(ttl_s=100, max_bytes=2 * one))
    assert cache.levels() == {"cache_bytes": 2 * one, "cache_entries": 2}
    cache.configure(CacheConfig(ttl_s=10))
    clock.now = 10.1
    assert (await cache(tokens("v", [2]))).cached.tolist() == [False]
    cache.configure(CacheConfig(ttl_s=10, enabled=False))
    assert cache.levels() == {"cache_bytes": 0, "cache_entries": 0}


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_megabytes"):
        CacheConfig.model_validate({"max_megabytes": 1})


rows = st.lists(st.integers(0, 3), min_size=1, max_size=3)
calls = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(rows, min_size=1, max_size=6), st.floats(0, 20)), max_size=20
)
"""Version, texts, and the seconds that pass before the call."""


@given(calls=calls, entries=st.integers(0, 10), enabled=st.booleans())
async def test_the_cached_answer_is_the_direct_one(
    calls: list[tuple[str, list[list[int]], float]], entries: int, enabled: bool
) -> None:
    clock, classifier = Clock(), Classifier()
    config = CacheConfig(enabled=enabled, max_bytes=entries * 430, ttl_s=30)
    cache = PredictionCache(classifier, config, clock)
    for version, texts, pause in calls:
        clock.now += pause
        batch = await cache(tokens(version, *texts))
        assert batch.version == version
        assert batch.failure is None
        assert np.array_equal(batch.logits, logits(version, *texts))
        assert cache.bytes <= config.max_bytes
    total = sum(len(texts) for _, texts, _ in calls)
    assert cache.hits + cache.misses + cache.shared == total
    assert cache.misses == sum(map(len, classifier.batches))
