"""Simulated logs on disk: layout, counts, the same from the same seed, written whole."""

import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.demo import PRODUCTS
from tests.unit.simulated import END, LAST, chats, rows, run, screens_before


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def summary(out: Path) -> dict[str, Any]:
    """What was written to `out`: about 40,000 events of 2,000 users, 1,500 messages."""
    return run(out, users=2000, days=6, events=40_000, messages=1500, seed=7, files_per_day=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("summary")
class TestLayout:
    def test_a_folder_a_day_and_files_as_asked(self, out: Path) -> None:
        days = [LAST - timedelta(days=ago) for ago in range(6)]
        parts = {f"day={day}/part-0000{part}.parquet" for day in days for part in (0, 1)}
        assert {str(path.relative_to(out / "usage")) for path in (out / "usage").rglob("*.*")} == parts
        last = {f"day={LAST}/part-0000{part}.parquet" for part in (0, 1)}
        assert last <= {str(path.relative_to(out / "screens")) for path in (out / "screens").rglob("*.*")}

    def test_columns_and_types(self, out: Path) -> None:
        time, text = pa.timestamp("us", tz="UTC"), pa.string()
        usage = pa.schema([("event_id", text), ("user_id", text), ("product", text), ("at", time)])
        screens = pa.schema(
            [("event_id", text), ("user_id", text), ("screen", text), ("at", time), ("arrived_at", time)]
        )
        assert {pq.read_schema(path) == usage for path in (out / "usage").rglob("*.parquet")} == {True}
        assert {pq.read_schema(path) == screens for path in (out / "screens").rglob("*.parquet")} == {True}

    def test_files_are_compressed_with_zstd(self, out: Path) -> None:
        files = [pq.read_metadata(path).row_group(0) for path in out.rglob("*.parquet")]
        assert {group.column(i).compression for group in files for i in range(group.num_columns)} == {"ZSTD"}

    def test_a_day_holds_only_its_own_events(self, out: Path) -> None:
        for log in ("usage", "screens"):
            assert rows(out / log).filter(pl.col("at").dt.date() != pl.col("day")).height == 0

    def test_messages_are_of_the_last_day_oldest_first(self, out: Path) -> None:
        times = [datetime.fromisoformat(chat["at"]) for chat in chats(out)]
        assert times == sorted(times)
        assert {at.date() for at in times} == {LAST}
        assert {at.tzinfo for at in times} == {UTC}
        assert len({chat["request_id"] for chat in chats(out)}) == 1500
        assert {tuple(chat) for chat in chats(out)} == {("request_id", "user_id", "at", "text", "product")}


class TestCounts:
    def test_are_near_what_was_asked_for(self, out: Path, summary: dict[str, Any]) -> None:
        assert summary["usage_events"] == pytest.approx(40_000, rel=0.03)
        assert summary["messages"] == len(chats(out)) == 1500
        assert json.loads(json.dumps(summary)) == summary

    def test_are_those_of_the_files(self, out: Path, summary: dict[str, Any]) -> None:
        usage, screens = rows(out / "usage"), rows(out / "screens")
        assert (usage.height, screens.height) == (summary["usage_events"], summary["screen_events"])
        assert usage.height - usage["event_id"].n_unique() == summary["redelivered"]

    def test_of_malformed_rows_are_those_of_the_files(self, tmp_path: Path) -> None:
        written = run(tmp_path, users=30, days=2, malformed=1, messages=0)
        assert written["malformed"] == written["usage_events"] == rows(tmp_path / "usage").height > 0

    @pytest.mark.usefixtures("summary")
    @pytest.mark.parametrize("log", ["usage", "screens"])
    def test_a_few_events_are_there_twice_unchanged(self, out: Path, log: str) -> None:
        events = rows(out / log).drop("arrived_at", strict=False)
        assert events.unique().height == events["event_id"].n_unique()
        assert 1 < events.height - events["event_id"].n_unique() < 0.004 * events.height

    def test_by_default_everybody_is_as_active_as_in_the_demo(self, tmp_path: Path) -> None:
        week = run(tmp_path, users=3000, days=7, messages=0)
        uses = sum(share * uses for share, uses in PRODUCTS.values())
        assert week["usage_events"] == pytest.approx(3000 * 7 / 60 * uses, rel=0.08)


class TestSeed:
    def test_gives_the_same_bytes(self, tmp_path: Path) -> None:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            run(tmp_path / name, users=40, days=3, messages=20, seed=seed, malformed=0.1)
        one, same, other = (contents(tmp_path / name) for name in "abc")
        assert one == same
        assert [name for name in one if one[name] == other.get(name)] == []

    def test_a_day_added_later_is_the_day_of_a_longer_run(self, tmp_path: Path) -> None:
        for name, days, end in (("all", 4, END), ("some", 3, LAST), ("some", 1, END)):
            run(tmp_path / name, users=40, days=days, end=end, messages=5)
        usage = contents(tmp_path / "all" / "usage")
        assert len(usage) == 4
        assert contents(tmp_path / "some" / "usage") == usage

    def test_a_day_added_later_leaves_the_screens_of_the_day_before(self, tmp_path: Path) -> None:
        run(tmp_path, users=2000, days=1, end=LAST, messages=1500, seed=7)
        first = set(rows(tmp_path / "screens")["event_id"])
        run(tmp_path, users=2000, days=1, messages=1500, seed=7)
        assert first < set(rows(tmp_path / "screens")["event_id"])
        assert (tmp_path / "screens" / f"day={LAST - timedelta(days=1)}" / "eve-00000.parquet").is_file()

    def test_a_day_written_again_without_an_evening_before_removes_the_old_one(self, tmp_path: Path) -> None:
        run(tmp_path, users=2000, days=1, messages=1500, seed=7)
        assert rows(tmp_path / "screens")["day"].n_unique() == 2
        run(tmp_path, users=2000, days=1, messages=1, seed=7)
        assert rows(tmp_path / "screens")["day"].n_unique() == 1


class TestWriting:
    def test_a_day_written_again_replaces_all_of_its_parts(self, tmp_path: Path) -> None:
        for files in (3, 1):
            run(tmp_path / "twice", users=20, days=1, files_per_day=files, messages=9)
        run(tmp_path / "once", users=20, days=1, messages=9)
        assert contents(tmp_path / "twice") == contents(tmp_path / "once")

    def test_what_a_killed_run_left_unfinished_is_replaced(self, tmp_path: Path) -> None:
        folder = tmp_path / "usage" / f"day={LAST}"
        folder.mkdir(parents=True)
        left = folder / f".part-00000.parquet.{'0' * 32}"
        left.write_text("half a file")
        os.utime(left, (0, 0))
        run(tmp_path, users=20, days=1, messages=9)
        assert list(tmp_path.rglob(".*")) == []
        assert rows(tmp_path / "usage").height > 0

    def test_memory_is_that_of_one_day(self, tmp_path: Path) -> None:
        peaks = []
        for days in (2, 12):
            tracemalloc.start()
            run(tmp_path, users=300, days=days, events=4000 * days, messages=0)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"users": 0}, "users: 0 is less than 1"),
        ({"users": 10**13}, "users: 10000000000000 is more than 10000000"),
        ({"days": 0}, "days: 0 is less than 1"),
        ({"days": 30_000}, "days: 30000 days before 2026-11-01 begin before 1970"),
        ({"events": -1}, "events: -1 is less than 0"),
        ({"events": 10**12}, "events: 1000000000000 is more than 50000000"),
        ({"messages": -1}, "messages: -1 is less than 0"),
        ({"messages": 10**12}, "messages: 1000000000000 is more than 10000000"),
        ({"files_per_day": 0}, "files_per_day: 0 is less than 1"),
        ({"malformed": 1.5}, "malformed: 1.5 is not a share"),
        ({"malformed": float("nan")}, "malformed: nan is not a share"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"messages_file": Path("nowhere.jsonl")}, "nowhere.jsonl: no such file"),
    ],
)
def test_an_argument_out_of_range_is_named_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        run(tmp_path / "out", **{"users": 5, "days": 1, **wrong})
    assert not (tmp_path / "out").exists()


sizes = st.fixed_dictionaries(
    {
        "users": st.integers(1, 30),
        "days": st.integers(1, 3),
        "events": st.none() | st.integers(0, 300),
        "messages": st.integers(0, 12),
        "seed": st.integers(0, 2**64),
        "files_per_day": st.integers(1, 3),
        "malformed": st.sampled_from([0.0, 0.2, 1.0]),
    }
)


@settings(max_examples=25)
@given(sizes)
def test_any_size_is_written_whole(size: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        out = Path(folder)
        written = run(out, **size)
        usage, screens = rows(out / "usage"), rows(out / "screens")
        assert len(list((out / "usage").rglob("*.parquet"))) == size["days"] * size["files_per_day"]
        assert (usage.height, screens.height) == (written["usage_events"], written["screen_events"])
        assert len(chats(out)) == size["messages"]
        assert set(usage["user_id"].drop_nulls()) <= {f"u{i}" for i in range(1, size["users"] + 1)} | {""}
        assert set(usage["event_id"]).isdisjoint(screens["event_id"])
        assert all(screens for _, screens in screens_before(out))
