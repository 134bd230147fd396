"""Event logs of any writer: time stamps of all units and zones, text of all kinds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.event_log import read_day
from features.schema import screen_event
from tests.unit.event_logs import DAY, noon, not_utf8, table, write
from tests.unit.test_features_event_log import MIDNIGHT, USES, one

_NEARLY_RFC3339 = r"2026-(10-01|1-1)[Tt ](1[02]|9):(00|5):(0[0-9]|60|5)(\.[0-9]{1,9})? ?(Z|z|\+0[012]:?00|\+02)?"


class TestTypes:
    @pytest.mark.parametrize(
        "zone", [None, "UTC", "Etc/UTC", "Europe/Berlin", "+02:00", "-05:30", "Z", "America/New_York"]
    )
    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_time_stamps_of_any_unit_and_zone(self, tmp_path: Path, unit: str, zone: str | None) -> None:
        moments = [noon(), MIDNIGHT, MIDNIGHT + timedelta(hours=23, minutes=59, seconds=59)]
        kind = pa.timestamp(unit, zone)
        written = pa.array(moments, pa.timestamp(unit, "UTC")).cast(kind if zone else pa.int64()).cast(kind)
        day = read_day(one(tmp_path, at=written), DAY, "product")
        assert day.valid["at"].to_list() == moments
        assert day.valid["at"].dtype == pl.Datetime("us", "UTC")

    @pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
    def test_texts_in_any_encoding(self, tmp_path: Path, encoding: str) -> None:
        """Those of deltas come from writers of Parquet's version 2, such as Spark, DuckDB and arrow-rs."""
        file, texts = tmp_path / "a.parquet", ("event_id", "user_id", "product")
        encodings = dict.fromkeys(texts, encoding)
        pq.write_table(table(USES), file, use_dictionary=False, column_encoding=encodings)
        valid = read_day([file], DAY, "product").valid
        assert list(zip(valid["user_id"], valid["product"], strict=True)) == USES

    def test_the_time_stamps_of_old_writers(self, tmp_path: Path) -> None:
        file = tmp_path / "a.parquet"
        pq.write_table(table(USES), file, use_deprecated_int96_timestamps=True)
        assert read_day([file], DAY, "product").valid["at"].to_list() == [noon()] * 3

    @given(
        st.lists(
            st.tuples(
                st.datetimes(datetime(2026, 9, 30), datetime(2026, 10, 3)),
                st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)),
            ),
            max_size=5,
        )
    )
    def test_text_means_what_python_takes_it_for(
        self, tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[datetime, timedelta]]
    ) -> None:
        local = [(moment.replace(tzinfo=UTC) + offset).replace(tzinfo=None) for moment, offset in moments]
        texts = [f"{when.isoformat()}{_offset(offset)}" for when, (_, offset) in zip(local, moments, strict=True)]
        columns = table([("u", "a")] * len(texts), at=pa.array(texts, pa.string()))
        day = read_day([write(tmp_path_factory.mktemp("log"), DAY, columns)], DAY, "product")
        expected = [moment for text in texts if (moment := datetime.fromisoformat(text)).astimezone(UTC).date() == DAY]
        assert day.valid["at"].to_list() == expected
        assert day.rejected.height == len(texts) - len(expected)

    @given(st.from_regex(_NEARLY_RFC3339, fullmatch=True))
    @example("2026-10-01T10:00:00.1234565Z")
    def test_text_means_what_the_stream_takes_it_for(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        columns = table([("u", "a")], at=pa.array([text], pa.string()))
        day = read_day([write(tmp_path_factory.mktemp("log"), DAY, columns)], DAY, "product")
        fields = {"event_id": "e", "user_id": "u", "screen": "s", "at": text}
        try:
            expected = [screen_event(fields, datetime(2026, 10, 2, tzinfo=UTC)).at.astimezone(UTC)]
        except ValueError:
            expected = []
        assert day.valid["at"].to_list() == expected

    @pytest.mark.parametrize(
        "kind",
        [
            pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int64(), pa.large_string()),
        ],
    )  # fmt: skip
    def test_text_of_any_kind(self, tmp_path: Path, kind: pa.DataType) -> None:
        columns = {name: table(USES)[name] for name in ("event_id", "user_id", "product")}
        files = one(
            tmp_path / "arrow", **{name: column.combine_chunks().cast(kind) for name, column in columns.items()}
        )
        assert read_day(files, DAY, "product").valid.rows() == read_day(one(tmp_path), DAY, "product").valid.rows()

    @pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b"])])
    def test_the_categories_of_polars(self, tmp_path: Path, kind: pl.DataType) -> None:
        file = tmp_path / "a.parquet"
        pl.DataFrame(pl.from_arrow(table(USES))).with_columns(pl.col("product").cast(kind)).write_parquet(file)
        assert read_day([file], DAY, "product").valid["product"].to_list() == ["a", "b", "a"]

    @pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
    @pytest.mark.parametrize("column", ["event_id", "user_id", "product", "at"])
    def test_bytes_that_are_no_text_set_the_row_aside(self, tmp_path: Path, column: str, kind: pa.DataType) -> None:
        latin = not_utf8(["2026-10-01T12:00:00Z", "Jos\u00e9", "2026-10-01T12:00:01Z"])
        latin = latin.dictionary_encode() if pa.types.is_dictionary(kind) else latin.cast(kind)
        day = read_day(one(tmp_path, **{column: latin}), DAY, "product")
        assert (day.valid.height, day.rejected.height) == (2, 1)
        assert day.rejected["reason"][0].startswith(f"{column}: ")
        assert str(day.valid) + str(day.rejected)  # polars ends the process if it shows what is no UTF-8

    @pytest.mark.parametrize("column", ["event_id", "user_id", "product", "at"])
    def test_a_column_of_nothing_sets_every_row_aside(self, tmp_path: Path, column: str) -> None:
        day = read_day(one(tmp_path, **{column: pa.nulls(3)}), DAY, "product")
        assert (day.valid.height, day.rejected.height) == (0, 3)
        assert day.rejected["reason"][0].startswith(f"{column}: missing")


def _offset(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    return "Z" if minutes == 0 else f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
