"""Which run a message sees, and what stops a training set."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.bundled import bundled_preprocessor
from features.parquet_columns import LogError
from features.rows import DataError
from features.training_set import run_before
from tests.unit.offline_world import NOON, Use, build, write_world


@pytest.mark.parametrize(
    ("at", "as_of"),
    [
        ("2026-03-02T01:00:00+00:00", date(2026, 3, 1)),
        ("2026-03-02T02:59:59.999999+00:00", date(2026, 3, 1)),
        ("2026-03-02T03:00:00+00:00", date(2026, 3, 2)),
        ("2026-03-02T00:30:00-03:00", date(2026, 3, 2)),
        ("2026-03-02T03:30:00+01:00", date(2026, 3, 1)),
    ],
)
def test_the_run_that_is_there(at: str, as_of: date) -> None:
    assert run_before(datetime.fromisoformat(at)) == as_of


@given(st.datetimes(timezones=st.timezones()), st.integers(0, 47))
def test_no_run_is_used_before_it_is_there(at: datetime, hours: int) -> None:
    delay = timedelta(hours=hours)
    there = datetime.combine(run_before(at, delay), datetime.min.time(), UTC) + delay
    assert timedelta() <= at - there < timedelta(days=1)


class TestErrors:
    def test_a_usage_log_without_the_days_is_an_error(self, tmp_path: Path) -> None:
        world = write_world(tmp_path, [], [Use("ana", "loans", NOON)], {"ana": NOON + timedelta(days=100)})
        (world / "screens" / "day=2026-03-02").mkdir()
        with pytest.raises(LogError, match="no day from 2026-04-11 to 2026-06-09"):
            build(world, bundled_preprocessor())

    @pytest.mark.parametrize("delay", [timedelta(microseconds=-1), timedelta(days=30, microseconds=1)])
    def test_a_run_delay_out_of_range_is_an_error(self, tmp_path: Path, delay: timedelta) -> None:
        """A negative one would show a message the uses after it."""
        with pytest.raises(ValueError, match=r"run_delay: .* is not between 0 and 30 days"):
            build(tmp_path, bundled_preprocessor(), run_delay=delay)

    def test_a_malformed_chat_leaves_the_old_set_alone(self, tmp_path: Path) -> None:
        (tmp_path / "chats.jsonl").write_text('{"text": "hi", "product": "loans", "user_id": "ana", "at": "noon"}\n')
        (tmp_path / "set.jsonl").write_text("old")
        with pytest.raises(DataError, match=r"chats.jsonl:1: .*\$\.at"):
            build(tmp_path, bundled_preprocessor())
        assert (tmp_path / "set.jsonl").read_text() == "old"
