"""Reading event logs: which rows count, which are set aside and why, and which files are refused."""

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.event_log import day_files, read_day
from features.parquet_columns import LogError
from features.schema import ScreenEvent, screen_event
from tests.unit.event_logs import DAY, noon, table, write

USES = [("u1", "a"), ("u2", "b"), ("u1", "a")]
MIDNIGHT = datetime.combine(DAY, time(), UTC)
TICK = timedelta(microseconds=1)
_LIST_AS_NOBODY = """
import os, sys
from pathlib import Path
from features.event_log import day_files
if os.getuid() == 0:
    os.setuid(65534)
day_files(Path(sys.argv[1]))
"""


def one(log: Path, **columns: pa.Array) -> list[Path]:
    """A file of three events whose columns are replaced by these."""
    return [write(log, DAY, table(USES, **columns))]


class TestDayFiles:
    def test_days_and_files_are_in_order_and_hidden_files_are_left_out(self, tmp_path: Path) -> None:
        for day, name in (("2026-10-02", "b"), ("2026-10-02", "a"), ("2026-10-01", "c")):
            write(tmp_path, date.fromisoformat(day), USES, f"{name}.parquet")
        for name in (".a.parquet", "_a.parquet", "a.crc"):
            (tmp_path / "day=2026-10-02" / name).touch()
        found = {str(day): [file.name for file in files] for day, files in day_files(tmp_path).items()}
        assert list(found.items()) == [("2026-10-01", ["c.parquet"]), ("2026-10-02", ["a.parquet", "b.parquet"])]

    def test_a_day_that_is_partitioned_further_is_refused(self, tmp_path: Path) -> None:
        """Its events would count as none at all."""
        (tmp_path / "day=2026-10-01" / "hour=03").mkdir(parents=True)
        with pytest.raises(LogError, match="hour=03: a folder, where the day's Parquet files should be"):
            day_files(tmp_path)

    @pytest.mark.parametrize("name", ["part-0.parq", "part-0.PARQUET", "part-0.parquet.gz", "events.csv", "part-0"])
    def test_a_file_that_would_not_be_read_is_named(self, tmp_path: Path, name: str) -> None:
        """Its events would count as none at all."""
        write(tmp_path, DAY, USES, name)
        with pytest.raises(LogError, match=f"day={DAY}/{name}: not named \\*.parquet"):
            day_files(tmp_path)

    def test_a_day_may_be_empty(self, tmp_path: Path) -> None:
        (tmp_path / "day=2026-10-01").mkdir()
        assert day_files(tmp_path) == {DAY: []}

    @pytest.mark.parametrize("name", ["day=20261001", "day=2026-13-01", "day=", "day=2026-W40-4", "day=2026-10-01 "])
    def test_a_folder_that_names_no_day_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(LogError, match=f"{name}: expected day=YYYY-MM-DD"):
            day_files(tmp_path)

    def test_a_log_that_may_not_be_listed_is_not_taken_for_empty(self) -> None:
        """By somebody else than root, who may list all."""
        with TemporaryDirectory() as folder:
            (Path(folder) / f"day={DAY}").mkdir()
            Path(folder).chmod(0o311)
            run = subprocess.run([sys.executable, "-c", _LIST_AS_NOBODY, folder], text=True, stderr=subprocess.PIPE)
        reason = f"PermissionError: [Errno 13] Permission denied: '{folder}'"
        assert (run.returncode, run.stderr.splitlines()[-1]) == (1, reason)

    def test_a_log_must_exist_and_hold_days(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match="none: no such folder"):
            day_files(tmp_path / "none")
        with pytest.raises(LogError, match="holds no folder day=YYYY-MM-DD"):
            day_files(tmp_path)


class TestRows:
    @pytest.mark.parametrize("column", ["event_id", "user_id", "product"])
    @pytest.mark.parametrize("value", [None, "", "x" * 129, "€" * 129])
    def test_text_that_does_not_fit_sets_the_row_aside(self, tmp_path: Path, column: str, value: str | None) -> None:
        day = read_day(one(tmp_path, **{column: pa.array(["x", value, "€" * 128], pa.string())}), DAY, "product")
        assert day.valid[column].to_list() == ["x", "€" * 128]
        (row,) = day.rejected.to_dicts()
        assert row["reason"] == f"{column}: missing, or not 1 to 128 characters of UTF-8"
        assert row[column] == value

    @pytest.mark.parametrize("column", ["event_id", "user_id", "screen"])
    def test_a_screen_that_the_ingester_takes_for_lost_bytes_is_set_aside(self, tmp_path: Path, column: str) -> None:
        names = ("event_id", "user_id", "screen", "at")
        events = [ScreenEvent(f"e{i}", "ann", "café", noon()) for i in range(2)]
        lost = msgspec.structs.replace(events[1], **{column: "caf\ufffd"})
        with pytest.raises(ValueError, match=f"{column}: not UTF-8"):
            screen_event(lost.fields(), noon())
        rows = pa.table([[getattr(event, name) for event in (events[0], lost)] for name in names], names=names)
        day = read_day([write(tmp_path, DAY, rows)], DAY, "screen")
        assert day.valid["event_id"].to_list() == ["e0"]
        assert day.rejected["reason"].to_list() == [f"{column}: missing, or not 1 to 128 characters of UTF-8"]

    @pytest.mark.parametrize("at", [MIDNIGHT - TICK, MIDNIGHT + timedelta(days=1), None, datetime(1, 1, 1, tzinfo=UTC)])
    def test_a_moment_outside_the_day_sets_the_row_aside(self, tmp_path: Path, at: datetime | None) -> None:
        fitting = [MIDNIGHT, MIDNIGHT + timedelta(days=1) - TICK]
        day = read_day(
            one(tmp_path, at=pa.array([fitting[0], at, fitting[1]], pa.timestamp("us", "UTC"))), DAY, "product"
        )
        assert day.valid["at"].to_list() == fitting
        assert day.rejected["reason"].to_list() == [
            "at: missing, or not RFC 3339" if at is None else "at: not on 2026-10-01"
        ]
        assert day.rejected["at"].to_list() == [at and f"{at:%Y-%m-%d %H:%M:%S.%f}+00:00".rjust(32, "0")]

    @pytest.mark.parametrize("text", ["2026-10-01", "2026-10-01T12:00:00", "noon", "", "2026-10-01T25:00:00Z"])
    def test_text_that_is_no_moment_is_kept_with_the_row(self, tmp_path: Path, text: str) -> None:
        day = read_day(one(tmp_path, at=pa.array([text, "2026-10-01T12:00:00Z", None])), DAY, "product")
        assert day.valid["at"].to_list() == [noon()]
        assert day.rejected.select("at", "reason").rows() == [
            (at, "at: missing, or not RFC 3339") for at in (text, None)
        ]

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_moments_that_no_calendar_has_are_set_aside(self, tmp_path: Path, unit: str) -> None:
        far = pa.array([2**63 - 1, -(2**63), 2**62]).cast(pa.timestamp(unit, "UTC"), safe=False)
        if unit == "s":  # Parquet has no seconds
            far = pa.array([9**15, -(9**15), 8**15]).cast(pa.timestamp(unit, "UTC"))
        day = read_day(one(tmp_path, at=far), DAY, "product")
        assert day.valid.is_empty()
        assert day.rejected["reason"].to_list() == ["at: not on 2026-10-01"] * 3

    def test_the_first_reason_of_several_is_told(self, tmp_path: Path) -> None:
        nothing = pa.nulls(3, pa.string())
        day = read_day(one(tmp_path, user_id=nothing, product=nothing, at=nothing), DAY, "product")
        assert day.rejected["reason"].unique().to_list() == ["user_id: missing, or not 1 to 128 characters of UTF-8"]

    def test_an_event_counts_once_wherever_it_is_repeated(self, tmp_path: Path) -> None:
        files = [
            write(tmp_path, DAY, table([("u1", "a"), ("u2", "b"), ("u1", "a")], first=0), "0.parquet"),
            write(tmp_path, DAY, table([("u3", "c"), ("u4", "d")], first=2), "1.parquet"),
        ]
        day = read_day([*files, files[0]], DAY, "product")
        assert sorted(day.valid.select("event_id", "user_id").rows()) == [
            ("e0", "u1"), ("e1", "u2"), ("e2", "u1"), ("e3", "u4"),
        ]  # fmt: skip
        assert (day.duplicates, day.rejected.height) == (4, 0)

    def test_events_of_a_large_day_count_once(self, tmp_path: Path) -> None:
        names = [f"e{number * number % 40_009}" for number in range(30_000)]
        columns = table([("u", "a")] * len(names), event_id=pa.array(names))
        day = read_day([write(tmp_path, DAY, columns)], DAY, "product")
        assert day.valid["event_id"].to_list() == list(dict.fromkeys(names))
        assert day.duplicates == len(names) - len(set(names))

    def test_a_malformed_repetition_is_not_a_duplicate(self, tmp_path: Path) -> None:
        day = read_day(
            one(tmp_path, event_id=pa.array(["e", "e", "e"]), user_id=pa.array([None, "u", "u"])), DAY, "product"
        )
        assert (day.valid.height, day.rejected.height, day.duplicates) == (1, 1, 1)

    def test_other_columns_are_ignored(self, tmp_path: Path) -> None:
        files = one(tmp_path, price=pa.array([1, 2, 3]), odd=pa.array([noon()] * 3, pa.timestamp("us", "-05:30")))
        assert read_day(files, DAY, "product").valid.columns == ["event_id", "user_id", "product", "at"]

    def test_a_day_without_files_or_rows_is_empty(self, tmp_path: Path) -> None:
        for files in ([], [write(tmp_path, DAY, [])]):
            day = read_day(files, DAY, "product")
            assert (day.valid.height, day.rejected.height, day.duplicates) == (0, 0, 0)
            assert day.valid.columns == ["event_id", "user_id", "product", "at"]


class TestRefusals:
    @pytest.mark.parametrize("column", ["event_id", "user_id", "product", "at"])
    def test_a_missing_column_is_named_with_the_file(self, tmp_path: Path, column: str) -> None:
        file = write(tmp_path, DAY, table(USES).drop_columns(column))
        with pytest.raises(LogError, match=f"{file}: column '{column}' is missing; the file has "):
            read_day([write(tmp_path, DAY, USES, "fits.parquet"), file], DAY, "product")

    @pytest.mark.parametrize(
        ("column", "values", "found"),
        [
            ("user_id", pa.array([1, 2, 3]), "Int64, expected text"),
            ("event_id", pa.array([b"1", b"2", b"3"]), "Binary, expected text"),
            ("product", pa.array([["a"], ["b"], []]), r"List\(String\), expected text"),
            ("at", pa.array([1, 2, 3]), "Int64, expected a time stamp or RFC 3339 text"),
            ("at", pa.array([DAY] * 3), "Date, expected a time stamp or RFC 3339 text"),
        ],
    )
    def test_a_column_of_another_type_is_named(self, tmp_path: Path, column: str, values: pa.Array, found: str) -> None:
        (file,) = one(tmp_path, **{column: values})
        with pytest.raises(LogError, match=f"{file}: column '{column}' is {found}"):
            read_day([file], DAY, "product")

    @pytest.mark.parametrize("column", ["event_id", "product"])
    def test_a_column_that_is_there_twice_is_named(self, tmp_path: Path, column: str) -> None:
        twice = table(USES)
        file = write(tmp_path, DAY, pa.table([*twice.columns, twice[column]], names=[*twice.column_names, column]))
        with pytest.raises(LogError, match=f"{file}: not a readable Parquet file: .*more than once.*{column}"):
            read_day([file], DAY, "product")

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"event_id,user_id\n" * 9])
    def test_what_is_no_parquet_is_named(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "a.parquet"
        file.write_bytes(content)
        with pytest.raises(LogError, match=f"{file}: not a readable Parquet file: ."):
            read_day([file], DAY, "product")

    def test_a_file_that_went_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match=r"gone\.parquet: not a readable Parquet file"):
            read_day([tmp_path / "gone.parquet"], DAY, "product")

    @given(cut=st.floats(0, 1, exclude_max=True))
    def test_a_truncated_file_is_named(self, tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
        file = write(tmp_path_factory.mktemp("log"), DAY, USES)
        content = file.read_bytes()
        file.write_bytes(content[: int(cut * len(content))])
        with pytest.raises(LogError, match=f"{file}: not a readable Parquet file: ."):
            read_day([file], DAY, "product")

    @given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
    @example(place=0.0474, value=99)  # a length of 2 ** 61, for which polars ends the process
    @example(place=0.2960, value=0)  # a histogram of another size, for which Arrow does where its metadata is looked at
    def test_a_changed_byte_is_a_refusal_or_other_rows(
        self, tmp_path_factory: pytest.TempPathFactory, place: float, value: int
    ) -> None:
        file = write(tmp_path_factory.mktemp("log"), DAY, USES)
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] = value
        file.write_bytes(content)
        refusal = ""
        try:
            read_day([file], DAY, "product")
        except LogError as error:
            refusal = str(error)
        assert not refusal or str(file) in refusal

    def test_a_path_is_no_pattern(self, tmp_path: Path) -> None:
        file = write(tmp_path / "[a]*?", DAY, USES)
        assert read_day([file], DAY, "product").valid.height == len(USES)
