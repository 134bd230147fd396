"""When screens arrived, as a log has it: known, unknown, or a text that says nothing, and so counts nowhere."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event_log import DayOfEvents, read_day
from tests.unit.event_logs import DAY, noon, not_utf8, table, write
from tests.unit.test_features_event_log import USES


def screens(log: Path, arrived: pa.Array, name: str = "0.parquet", **columns: Sequence[str]) -> Path:
    """A file of events e0, e1, … of user `u` on the screen `home` at noon; `columns` replace those of the same name."""
    uses = table([("u", "home")] * len(arrived)).rename_columns({"product": "screen"})
    for column, values in columns.items():
        uses = uses.set_column(uses.schema.get_field_index(column), column, [values])
    return write(log, DAY, uses.append_column("arrived_at", arrived), name)


def read(*files: Path) -> DayOfEvents:
    return read_day(files, DAY, "screen")


def moments(*seconds: float | None) -> pa.Array:
    """So many seconds after noon."""
    return pa.array([None if s is None else noon(seconds=s) for s in seconds], pa.timestamp("us", "UTC"))


class TestArrival:
    def test_is_known_where_the_log_has_it(self, tmp_path: Path) -> None:
        arrived = moments(1, 2, 3).cast(pa.timestamp("ns", "UTC"))
        without = table(USES).rename_columns({"product": "screen"}).set_column(0, "event_id", [["f0", "f1", "f2"]])
        day = read(screens(tmp_path, arrived), write(tmp_path, DAY, without, "1.parquet"))
        assert day.valid.columns == ["event_id", "user_id", "screen", "at", "arrived_at"]
        assert day.valid["arrived_at"].to_list() == [*moments(1, 2, 3).to_pylist(), None, None, None]

    @pytest.mark.parametrize("text", ["2026-10-01T12:00:05", "2026-10-01 12:00:05", "2026-10-01", "noon", "", "null"])
    def test_that_cannot_be_read_sets_the_row_aside(self, tmp_path: Path, text: str) -> None:
        """Taken for unknown it would count as at once: too early."""
        day = read(screens(tmp_path, pa.array(["2026-10-01T12:00:05Z", text, None])))
        assert day.valid.select("event_id", "arrived_at").rows() == [("e0", noon(seconds=5)), ("e2", None)]
        assert day.rejected.select("event_id", "reason").rows() == [("e1", "arrived_at: not RFC 3339")]

    def test_that_is_no_text_sets_the_row_aside(self, tmp_path: Path) -> None:
        day = read(screens(tmp_path, not_utf8(["2026-10-01T12:00:05Z", "\u00e9"])))
        assert day.valid["event_id"].to_list() == ["e0"]
        assert day.rejected["reason"].to_list() == ["arrived_at: not RFC 3339"]

    @pytest.mark.parametrize("arrived", [pa.nulls(2), pa.nulls(2, pa.string()), moments(None, None)])
    def test_that_is_null_is_unknown(self, tmp_path: Path, arrived: pa.Array) -> None:
        day = read(screens(tmp_path, arrived))
        assert (day.valid["arrived_at"].to_list(), day.rejected.height) == ([None, None], 0)

    def test_does_not_matter_in_a_log_of_uses(self, tmp_path: Path) -> None:
        day = read_day([write(tmp_path, DAY, table(USES, arrived_at=pa.array(["noon"] * 3)))], DAY, "product")
        assert (day.valid.height, day.rejected.height) == (3, 0)

    @given(st.lists(st.text(max_size=30) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat), max_size=4))
    def test_is_a_moment_or_a_reason_never_unknown(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
    ) -> None:
        day = read(screens(tmp_path_factory.mktemp("log"), pa.array(texts, pa.string())))
        assert day.valid["arrived_at"].null_count() == 0
        assert day.valid.height + day.rejected.height == len(texts)


class TestRepeated:
    def test_a_screen_counts_from_its_first_arrival_and_a_changed_one_is_another(self, tmp_path: Path) -> None:
        file = screens(
            tmp_path,
            moments(9, 3, 7, 8),
            event_id=["e"] * 4,
            screen=["home", "home", "home", "card"],
            at=["2026-10-01T12:00:00Z", "2026-10-01T12:00:00Z", "2026-10-01T12:00:05Z", "2026-10-01T12:00:00Z"],
        )
        day = read(file)
        assert day.valid.select("screen", "at", "arrived_at").rows() == [
            ("home", noon(), noon(seconds=3)),
            ("home", noon(seconds=5), noon(seconds=7)),
            ("card", noon(), noon(seconds=8)),
        ]
        assert day.duplicates == 1

    @pytest.mark.parametrize(("arrived", "first"), [((9, None), None), ((None, 9), None), ((-2, None), -2)])
    def test_an_unknown_arrival_is_when_it_happened(
        self, tmp_path: Path, arrived: tuple[float | None, ...], first: float | None
    ) -> None:
        day = read(screens(tmp_path, moments(*arrived), event_id=["e", "e"]))
        assert day.valid["arrived_at"].to_list() == moments(first).to_pylist()

    def test_the_screens_of_two_users_are_two(self, tmp_path: Path) -> None:
        """The store has a set for each user, whatever ids their events have."""
        day = read(screens(tmp_path, moments(2, 1, 3), event_id=["e"] * 3, user_id=["ana", "bo", "ana"]))
        assert sorted(day.valid.select("user_id", "arrived_at").rows()) == [
            ("ana", noon() + timedelta(seconds=2)),
            ("bo", noon() + timedelta(seconds=1)),
        ]
        assert day.duplicates == 1
