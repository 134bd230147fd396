"""Screens that a store with some of the newest events, not all, would have answered."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.point_in_time import MOMENT
from features.schema import MAX_AHEAD
from features.screen_history import screens_around
from features.screen_skew import Event, compared, explained
from features.store import StoreConfig
from tests.unit.offline_world import NOON


class TestExplained:
    events = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.booleans()), max_size=8).map(
        lambda drawn: [(f"e{number}\x1f{screen}", screen, sure) for number, screen, sure in drawn]
    )

    @settings(max_examples=500)
    @given(events, st.lists(st.sampled_from("ab"), max_size=4), st.integers(1, 3))
    def test_where_some_choice_of_the_unsure_gives_what_was_served(
        self, events: list[Event], shown: list[str], limit: int
    ) -> None:
        assert explained(shown, events, limit) == (shown in list(answers(events, limit)))

    def test_by_an_older_time_of_a_screen_whose_newer_one_was_not_stored(self) -> None:
        events = [("e\x1fa", "a", False), ("f\x1fb", "b", True), ("e\x1fa", "a", True)]
        assert explained(["b", "a"], events, 5)
        assert explained(["a", "b"], events, 5)
        assert not explained(["b"], [("f\x1fb", "b", True), ("g\x1fa", "a", True)], 5)

    @pytest.mark.parametrize(("shown", "possible"), [([], False), (["home"], True), (["home", "home"], False)])
    def test_by_one_of_the_times_of_a_screen_that_certainly_arrived_and_was_delivered_again(
        self, shown: list[str], possible: bool
    ) -> None:
        events = [("e\x1fhome", "home", False), ("e\x1fhome", "home", True)]
        assert explained(shown, events, 5) == possible

    def test_by_anything_where_there_are_too_many_choices_to_try(self) -> None:
        events = [(f"e{number}\x1fhome", "home", False) for number in range(40)] * 2
        assert explained(["other", *["home"] * 20], events, 50)


class TestAheadOfTime:
    """An event that the ingester refuses on arrival, and takes where it is behind."""

    @pytest.mark.parametrize(("ahead_s", "lag_s"), [(30, 60), (-30, 1), (30, 1)])
    @pytest.mark.parametrize("held", [True, False])
    def test_may_have_been_stored_within_the_lag(self, tmp_path: Path, ahead_s: int, lag_s: int, held: bool) -> None:
        at, lag = NOON + MAX_AHEAD + timedelta(seconds=ahead_s), timedelta(seconds=lag_s)
        file, screens = tmp_path / "screens.parquet", ["home"] if held else []
        columns = {"event_id": ["e"], "user_id": ["ana"], "screen": ["home"], "at": [at], "arrived_at": [NOON]}
        pl.DataFrame(columns).write_parquet(file)
        moment = NOON + timedelta(hours=1) - timedelta(minutes=30)
        served = pl.DataFrame(
            {"row": [0], "user_id": ["ana"], "recent_screens": [screens], "moment": [moment]},
            schema_overrides={"moment": MOMENT, "recent_screens": pl.List(pl.String)},
        )
        events, _ = screens_around(served, {NOON.date(): [file]}, StoreConfig(), lag)
        expected = ["home"] if ahead_s < 0 else []
        lagging = 0 < ahead_s < lag_s
        assert compared(served, events, lag, StoreConfig()).rows() == (
            [] if screens == expected else [(0, expected, lagging)]
        )


def answers(events: Sequence[Event], limit: int) -> Iterator[list[str]]:
    """What the store may answer: for each choice of the unsure events, its newest screens, each member once."""
    unsure = [place for place, event in enumerate(events) if not event[2]]
    for count in range(len(unsure) + 1):
        for chosen in combinations(unsure, count):
            held: dict[str, str] = {}
            for place, (member, screen, sure) in enumerate(events):
                if sure or place in chosen:
                    held.setdefault(member, screen)
            yield [*held.values()][:limit][::-1]
