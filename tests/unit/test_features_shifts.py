"""Counts of contexts tell what the contexts themselves would."""

from hypothesis import given
from hypothesis import strategies as st

from features.preprocess import ContextInput
from features.shifts import Contexts

ROWS = st.lists(
    st.builds(
        ContextInput,
        st.lists(st.sampled_from("abc"), max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["loans", "cards"]), st.integers(1, 4)),
    )
)


@given(ROWS, ROWS)
def test_counts_are_those_of_the_rows(training: list[ContextInput], served: list[ContextInput]) -> None:
    before = Contexts()
    for row in training:
        before.add(row)
    now = Contexts(known=before)
    for row in served:
        now.add(row)
    usages = [row.product_usage_60d for row in served if row.product_usage_60d]
    for product in ("loans", "cards"):
        assert sorted(now.of(product)) == sorted(usage.get(product, 0) for usage in usages)
    assert (now.rows, now.with_usage) == (len(served), len(usages))
    assert now.with_screens == sum(bool(row.recent_screens) for row in served)
    known = {screen for row in training for screen in row.recent_screens}
    assert now.unseen_screens == sum(not known.issuperset(row.recent_screens) for row in served)
    most = {p: max((row.product_usage_60d.get(p, 0) for row in training), default=0) for p in ("loans", "cards")}
    assert now.unseen_usage == sum(any(n > most[p] for p, n in row.product_usage_60d.items()) for row in served)
