"""Features as of a moment, offline: what the real store answers, and what the definition says."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from features.event_log import day_files
from features.point_in_time import uses_before
from features.schema import ScreenEvent
from features.screen_history import recent_screens, screen_events, screens_around, with_events
from features.store import FeatureStore, StoreConfig
from tests.unit.offline_world import (
    MS,
    NOON,
    Screen,
    Use,
    daily,
    readings,
    screen_frame,
    screens_then,
    usage_then,
    write_days,
)

CONFIG = StoreConfig(max_screens=3, screen_window_s=1)
US = timedelta(microseconds=1)

screens = st.builds(
    lambda number, user, screen, at_us, late_us: Screen(
        f"e{number}", user, screen, NOON + at_us * US, NOON + (at_us + late_us) * US
    ),
    st.integers(0, 6),
    st.sampled_from(["ana", "bo"]),
    st.sampled_from(["home", "card", "é\x1fb"]),
    st.integers(0, 4_000).map(lambda at: at * 500),
    st.sampled_from([-1_000, 0, 0, 0, 300, 20_000, 900_000]),
)
moments = st.lists(st.integers(0, 3_000), min_size=1, max_size=6).map(sorted)


def offline(events: list[Screen], rows: pl.DataFrame, config: StoreConfig = CONFIG) -> dict[int, list[str]]:
    return dict(recent_screens(rows, screen_events(screen_frame(events)), config).iter_rows())


class TestScreens:
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(screens, max_size=20), moments)
    async def test_are_those_that_the_store_answers(self, redis: Redis, seen: list[Screen], at: list[int]) -> None:
        await redis.flushall()
        expected, asked, waiting = [], [], sorted(seen, key=lambda e: e.arrived or e.at)
        for ms in at:
            moment = NOON + ms * MS + 999 * US
            due = [e for e in waiting if (e.arrived or e.at) <= moment]
            waiting = waiting[len(due) :]
            now = [(NOON.timestamp() * 1000 + ms + 0.5) / 1000]
            store = FeatureStore(redis, CONFIG, clock=now.pop)
            await store.write_screens(ScreenEvent(e.event_id, e.user_id, e.screen, e.at) for e in due)
            answers = await store.read(["ana", "bo"])
            expected += [list(user.recent_screens) for user in answers]
            asked += [("ana", moment), ("bo", moment)]
        found = offline(seen, readings(asked))
        assert [found.get(row, []) for row in range(len(asked))] == expected

    @given(st.lists(screens, max_size=20), moments)
    def test_are_those_of_the_definition(self, seen: list[Screen], at: list[int]) -> None:
        asked = [(user, NOON + ms * MS) for ms in at for user in ("ana", "bo", "nobody")]
        found = offline(seen, readings(asked))
        assert [found.get(row, []) for row in range(len(asked))] == [screens_then(seen, *q, CONFIG) for q in asked]

    @pytest.mark.parametrize(("after_us", "found"), [(-1, {}), (0, {0: ["home"]}), (1, {0: ["home"]})])
    def test_count_from_the_microsecond_of_their_arrival(self, after_us: int, found: dict[int, list[str]]) -> None:
        late = Screen("e1", "ana", "home", NOON, NOON + 5 * MS)
        assert offline([late], readings([("ana", NOON + 5 * MS + after_us * US)])) == found

    def test_without_arrival_count_from_when_they_happened(self) -> None:
        events = screen_events(screen_frame([Screen("e1", "ana", "home", NOON)]).drop("arrived_at"))
        rows = readings([("ana", NOON - US), ("ana", NOON)])
        assert dict(recent_screens(rows, events, CONFIG).iter_rows()) == {1: ["home"]}

    def test_that_the_ingester_refuses_do_not_count(self) -> None:
        ahead, too_far = (Screen(str(d), "ana", f"s{d}", NOON + d * MS, NOON) for d in (300_000, 300_001))
        assert offline([ahead, too_far], readings([("ana", NOON)])) == {0: ["s300000"]}

    @pytest.mark.parametrize(("age_ms", "found"), [(1000, {0: ["home"]}), (1001, {})])
    def test_are_recent_to_the_end_of_the_window(self, age_ms: int, found: dict[int, list[str]]) -> None:
        assert offline([Screen("e1", "ana", "home", NOON)], readings([("ana", NOON + age_ms * MS)])) == found

    def test_of_many_readings_of_a_busy_user_come_in_parts(self) -> None:
        events = screen_events(screen_frame([Screen(f"e{i}", "ana", f"s{i}", NOON + i * MS) for i in range(60_000)]))
        rows = readings([("ana", NOON + i * 20 * MS) for i in range(3000)])
        parts = list(with_events(rows, events, CONFIG))
        assert len(parts) > 1
        found = dict(recent_screens(rows, events, CONFIG).iter_rows())
        assert {row: screens[-1] for row, screens in found.items()} == {i: f"s{i * 20}" for i in range(3000)}

    def test_around_midnight_come_from_both_days(self, tmp_path: Path) -> None:
        midnight = NOON.replace(hour=0)
        seen = [Screen(f"e{i}", "ana", f"s{i}", midnight + i * 100 * MS, midnight + 90 * MS) for i in range(-12, 5)]
        log = write_days(tmp_path, screen_frame(seen))
        rows = readings([("ana", midnight + 100 * MS + 999 * US), ("bo", midnight + 150 * MS)])
        events, malformed = screens_around(rows, day_files(log), StoreConfig(max_screens=20, screen_window_s=1))
        found = dict(recent_screens(rows, events, StoreConfig(max_screens=20, screen_window_s=1)).iter_rows())
        assert found == {0: [f"s{i}" for i in range(-9, 5)]}
        assert malformed == {midnight.date() - timedelta(days=1): 0, midnight.date(): 0}

    def test_that_do_not_fit_are_counted_for_each_day_that_was_read(self, tmp_path: Path) -> None:
        """Such as what happened just before midnight and lies in the folder of the day on which it arrived."""
        midnight = NOON.replace(hour=0)
        seen = [Screen("", "bo", "home", midnight - 9 * MS), Screen("e1", "ana", "home", midnight + 9 * MS)]
        log = write_days(tmp_path, screen_frame(seen))
        late = screen_frame([Screen("e2", "ana", "home", midnight - MS, midnight + MS)])
        late.write_parquet(tmp_path / f"day={midnight.date()}" / "late.parquet")
        rows = readings([("ana", midnight + 95 * MS)])
        events, malformed = screens_around(rows, day_files(log), CONFIG)
        assert events["member"].to_list() == ["e1\x1fhome"]
        assert malformed == {midnight.date() - timedelta(days=1): 1, midnight.date(): 1}

    def test_of_days_that_the_log_lacks_are_none(self) -> None:
        rows = readings([("ana", NOON)])
        events, malformed = screens_around(rows, {}, CONFIG)
        assert (recent_screens(rows, events, CONFIG).rows(), malformed) == ([], {})


class TestUses:
    uses = st.lists(
        st.builds(
            lambda user, product, day, second: Use(user, product, NOON + timedelta(days=day, seconds=second)),
            st.sampled_from(["ana", "bo"]),
            st.sampled_from(["loans", "security", "insurance"]),
            st.integers(0, 12),
            st.integers(0, 43_199),
        ),
        max_size=40,
    )
    windows = st.lists(st.tuples(st.sampled_from(["ana", "bo", "nobody"]), st.integers(-2, 15), st.integers(1, 9)))

    @given(uses, windows)
    def test_are_those_of_the_days_of_the_window(self, uses: list[Use], asked: list[tuple[str, int, int]]) -> None:
        runs = {(user, NOON.date() + timedelta(day), days) for user, day, days in asked}
        schema = {"user_id": pl.String(), "as_of": pl.Date(), "days": pl.Int64()}
        found: dict[tuple[object, ...], dict[str, int]] = {run: {} for run in runs}
        for *run, product, count in uses_before(pl.DataFrame([*runs], schema, orient="row"), daily(uses)).iter_rows():
            assert product not in found[tuple(run)]
            found[tuple(run)][product] = count
        assert found == {run: usage_then(uses, *run) for run in runs}
