"""Screens that a store with some of the newest events, not all, would have answered."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

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


class TestWithinTheLag:
    @pytest.mark.parametrize(("ahead_s", "lag_s"), [(30, 60), (-30, 1), (30, 1)])
    @pytest.mark.parametrize("held", [True, False])
    def test_may_have_been_stored_what_is_refused_on_arrival(
        self, tmp_path: Path, ahead_s: int, lag_s: int, held: bool
    ) -> None:
        """Being too far ahead of time then; the ingester takes it where it is behind."""
        at, screens = NOON + MAX_AHEAD + timedelta(seconds=ahead_s), ["home"] if held else []
        expected = ["home"] if ahead_s < 0 else []
        lagging = 0 < ahead_s < lag_s
        assert differing(tmp_path, screens, (at, NOON), NOON + timedelta(minutes=30), lag_s) == (
            [] if screens == expected else [(0, expected, lagging)]
        )

    @pytest.mark.parametrize(
        ("served", "after_s", "told"),
        [
            (["home"], 11, ([], False)),
            (["home"], 10, ([], True)),
            ([], -9, (["home"], True)),
            ([], -10, (["home"], False)),
        ],
    )
    def test_may_or_may_not_have_been_stored_what_arrived_shortly_before_the_read_or_after_it(
        self, tmp_path: Path, served: list[str], after_s: int, told: tuple[list[str], bool]
    ) -> None:
        arrived = NOON + timedelta(seconds=after_s)
        assert differing(tmp_path, served, (arrived, arrived), NOON, 10) == [(0, *told)]


def differing(
    folder: Path, served: list[str], event: tuple[datetime, datetime], moment: datetime, lag_s: int
) -> list[tuple[Any, ...]]:
    """What `compared` tells of one read, and of a log of one event of the screen `home`: its time, and its arrival."""
    file, lag = folder / "screens.parquet", timedelta(seconds=lag_s)
    columns = {"event_id": ["e"], "user_id": ["ana"], "screen": ["home"], "at": [event[0]], "arrived_at": [event[1]]}
    pl.DataFrame(columns).write_parquet(file)
    read = pl.DataFrame(
        {"row": [0], "user_id": ["ana"], "recent_screens": [served], "moment": [moment]},
        schema_overrides={"moment": MOMENT, "recent_screens": pl.List(pl.String)},
    )
    events, _ = screens_around(read, {NOON.date(): [file]}, StoreConfig(), lag)
    return compared(read, events, lag, StoreConfig()).rows()


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
