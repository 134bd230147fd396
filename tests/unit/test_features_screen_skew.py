"""Screens that a store with some of the newest events, not all, would have answered."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from features.screen_skew import Event, explained


class TestExplained:
    events = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab"), st.booleans()), max_size=7).map(
        lambda drawn: [(f"e{number}\x1f{screen}", screen, sure) for number, screen, sure in drawn]
    )

    @settings(max_examples=300)
    @given(events, st.lists(st.sampled_from("ab"), max_size=3))
    def test_where_some_choice_of_the_unsure_gives_what_was_served(self, events: list[Event], shown: list[str]) -> None:
        unique = [event for i, event in enumerate(events) if event[0] not in [e[0] for e in events[:i]]]
        assert explained(shown, unique, 3) == (shown in list(answers(unique, 3)))

    def test_by_an_older_time_of_a_screen_whose_newer_one_was_not_stored(self) -> None:
        events = [("e\x1fa", "a", False), ("f\x1fb", "b", True), ("e\x1fa", "a", True)]
        assert explained(["b", "a"], events, 5)
        assert explained(["a", "b"], events, 5)
        assert not explained(["b"], [("f\x1fb", "b", True), ("g\x1fa", "a", True)], 5)


def answers(events: Sequence[Event], limit: int) -> Iterator[list[str]]:
    """What the store may answer: for each choice of the unsure events, its newest screens."""
    unsure = [event for event in events if not event[2]]
    for count in range(len(unsure) + 1):
        for chosen in combinations(unsure, count):
            stored = [event for event in events if event[2] or event in chosen]
            yield [screen for _, screen, _ in stored[:limit]][::-1]
