"""Remembered tokens are the preprocessor's own, whatever comes in whatever order, within bounds."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from deployments.recent_tokens import RecentTokens
from features.preprocess import Ids, Preprocessor
from models.registry import Registry


class Counted(Preprocessor):
    """Notes which texts it was asked for."""

    def __init__(self) -> None:
        like = Registry().load("production").preprocessor
        self.asked: list[str] = []
        super().__init__(like.config, like.tokenizer)

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        self.asked += texts
        return super().tokens(texts)


COUNTED = Counted()
text = st.sampled_from(["a", "b", "B ", "card", "card again", "x" * 9]) | st.text(max_size=9)


def lists(rows: Sequence[Ids]) -> list[list[int]]:
    return [row.tolist() for row in rows]


@given(batches=st.lists(st.lists(text, max_size=6), max_size=6), entries=st.integers(1, 4), longest=st.integers(0, 9))
def test_they_are_the_preprocessor_s_own(batches: list[list[str]], entries: int, longest: int) -> None:
    recent = RecentTokens(COUNTED, entries, longest)
    for batch in batches:
        rows, _ = recent.tokens(batch)
        assert lists(rows) == lists(Preprocessor.tokens(COUNTED, batch))
        assert len(recent) <= 2 * entries


def test_a_text_that_came_before_is_not_tokenised_again() -> None:
    recent, counted = RecentTokens(COUNTED), COUNTED
    counted.asked.clear()
    assert recent.tokens(["one", "two"])[1] == 0
    assert recent.tokens(["two", "three", "one"])[1] == 2
    assert counted.asked == ["one", "two", "three"]


def test_texts_that_come_again_outlive_those_that_do_not() -> None:
    recent, counted = RecentTokens(COUNTED, entries=2), COUNTED
    recent.tokens(["kept"])
    for other in ("1", "2", "3", "4", "5", "6"):
        recent.tokens([other])
        counted.asked.clear()
        recent.tokens(["kept"])
        assert counted.asked == []
    recent.tokens(["1"])
    assert counted.asked == ["1"]


def test_long_texts_are_not_remembered() -> None:
    recent, counted = RecentTokens(COUNTED, longest=3), COUNTED
    counted.asked.clear()
    for _ in range(2):
        recent.tokens(["abc", "abcd"])
    assert counted.asked == ["abc", "abcd", "abcd"]


def test_what_was_written_is_not_kept() -> None:
    recent = RecentTokens(COUNTED)
    recent.tokens(["my card 4111 1111 1111 1111", "\ud800"])
    assert len(recent) == 2
    assert "4111" not in repr(vars(recent))
