"""Contexts for clear messages in training, drawn from the data itself."""

import random

import pytest

from models.context_sampling import MAX_SCREENS, ContextPool, with_contexts
from models.data import OUT_OF_SCOPE, Example

CARD = Example("declined", "card", ("home", "card_limit"), {"card": 3})
LOAN = Example("declined", "loan", ("loan_simulator",))
SAVE = Example("empty", "save", ("a", "b", "c", "save_goal"), {"save": 1})
POOL = ContextPool([CARD, LOAN, SAVE, Example("clear", "none")])
CLEAR = Example("raise my card limit", "card")
OUTSIDE = Example("good morning", OUT_OF_SCOPE)


def context(example: Example) -> tuple[tuple[str, ...], dict[str, int]]:
    return example.recent_screens, dict(example.product_usage_60d)


def test_agreeing_context_is_one_of_the_own_product() -> None:
    row = POOL.agreeing(CLEAR, random.Random(0))
    assert (row.text, row.product, context(row)) == (CLEAR.text, "card", context(CARD))


def test_misleading_context_is_one_of_another_product() -> None:
    seen = [context(POOL.misleading(CLEAR, random.Random(seed))) for seed in range(40)]
    assert context(CARD) not in seen
    assert context(LOAN) in seen
    assert context(SAVE) in seen


def test_stale_context_ends_with_the_newer_visit() -> None:
    for seed in range(40):
        row = POOL.stale(CLEAR, random.Random(seed))
        newer = next(source for source in (LOAN, SAVE) if row.recent_screens[-1] == source.recent_screens[-1])
        assert row.recent_screens[-len(newer.recent_screens) :] == newer.recent_screens
        assert len(newer.recent_screens) < len(row.recent_screens) <= MAX_SCREENS
        assert row.product_usage_60d == newer.product_usage_60d


def test_without_contexts_in_the_data_rows_stay_as_they_are() -> None:
    nothing = ContextPool([CLEAR])
    assert not nothing
    assert POOL
    rng = random.Random(0)
    assert [f(CLEAR, rng) for f in (nothing.agreeing, nothing.misleading, nothing.stale)] == [CLEAR] * 3
    assert with_contexts([CLEAR, OUTSIDE], nothing, 2, 0) == [CLEAR, CLEAR, OUTSIDE, OUTSIDE]


def test_a_product_that_was_never_seen_with_a_context_has_no_agreeing_one() -> None:
    insurance = Example("my policy", "insurance")
    assert POOL.agreeing(insurance, random.Random(0)) == insurance


def test_rows_with_a_context_keep_it() -> None:
    assert with_contexts([CARD, LOAN], POOL, 3, 0) == [CARD] * 3 + [LOAN] * 3


def test_rows_are_the_same_for_the_same_seed() -> None:
    rows = [CLEAR, OUTSIDE] * 10
    assert with_contexts(rows, POOL, 2, 7) == with_contexts(rows, POOL, 2, 7)
    assert with_contexts(rows, POOL, 2, 7) != with_contexts(rows, POOL, 2, 8)


def test_clear_rows_get_the_four_kinds_in_the_said_shares() -> None:
    rows = with_contexts([CLEAR] * 4000, POOL, 1, 0)
    kinds = [context(row) for row in rows]
    single = [context(LOAN), context(SAVE)]
    absent = sum(not row.has_context for row in rows)
    agreeing = kinds.count(context(CARD))
    misleading = sum(map(kinds.count, single))
    shares = [count / len(rows) for count in (absent, agreeing, len(rows) - absent - agreeing - misleading, misleading)]
    assert shares == pytest.approx([0.35, 0.2, 0.15, 0.3], abs=0.03)


def test_out_of_scope_rows_get_contexts_of_products_but_none_agrees() -> None:
    pool = ContextPool([CARD, Example("hello", OUT_OF_SCOPE, ("search",))])
    rows = with_contexts([OUTSIDE] * 400, pool, 1, 0)
    assert {row.product for row in rows} == {OUT_OF_SCOPE}
    assert not any("search" in row.recent_screens for row in rows)
    assert any("card_limit" in row.recent_screens for row in rows)
