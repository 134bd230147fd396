"""The served log's hashes tell inputs apart, and its reader names what does not fit."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.parquet_columns import LogError
from features.preprocess import ContextInput
from features.served_log import served_files, served_rows
from features.served_schema import SERVED, context_hash, text_hash, unknown_tokens
from tests.unit.event_logs import not_utf8
from tests.unit.offline_world import NOON

ids = st.lists(st.sampled_from([0, 1, 256, 40_000]), max_size=3)
contexts = st.builds(
    ContextInput,
    st.lists(st.text('ab",', max_size=2), max_size=2).map(tuple),
    st.dictionaries(st.text("ab", max_size=1), st.integers(1, 2), max_size=2),
)


@given(ids, ids)
def test_texts_have_equal_hashes_if_their_tokens_are_equal(one: list[int], other: list[int]) -> None:
    first, second = (text_hash(np.array(row, np.int32)) for row in (one, other))
    assert (first == second) == (one == other)


def test_a_text_hash_is_that_of_the_tokens_wherever_they_lie() -> None:
    row = np.arange(12, dtype=np.int32)
    assert text_hash(row[::2]) == text_hash(row[::2].copy()) == "f90640ae66199195"


@given(ids, st.sampled_from([None, 0, 1, 7]))
def test_unknown_are_the_tokens_that_stand_for_what_the_vocabulary_lacks(row: list[int], unknown: int | None) -> None:
    assert unknown_tokens(np.array(row, np.int32), unknown) == sum(token == unknown for token in row)


@given(contexts, contexts)
def test_contexts_have_equal_hashes_if_they_are_equal(one: ContextInput, other: ContextInput) -> None:
    assert (context_hash(one) == context_hash(other)) == (one == other)


@given(contexts)
def test_the_order_of_products_does_not_matter(context: ContextInput) -> None:
    turned = dict(reversed([*context.product_usage_60d.items()]))
    assert context_hash(ContextInput(context.recent_screens, turned)) == context_hash(context)


def test_the_schema_loads_without_the_batch_extra() -> None:
    script = "import sys, features.served_schema; print({'polars', 'ray', 'pandas'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout == "set()\n"


class TestReader:
    def write(self, log: Path, day: int, table: pa.Table, name: str = "served-1.parquet") -> None:
        folder = log / f"day=2026-03-{day:02}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name)

    def table(self, *requests: str) -> pa.Table:
        rows = [{"request_id": request, "answered_at": NOON, "tokens": 3} for request in requests]
        return pa.Table.from_pylist(rows, SERVED)

    def test_takes_the_last_days_counted_from_the_newest(self, tmp_path: Path) -> None:
        for day in (1, 5, 6, 7):
            self.write(tmp_path, day, self.table(f"r{day}"))
        self.write(tmp_path, 7, self.table("draft"), ".served-2.parquet")
        for days, found in ((None, ["r1", "r5", "r6", "r7"]), (3, ["r5", "r6", "r7"]), (1, ["r7"])):
            files = served_files(tmp_path, ["request_id"], days)
            assert [request for _, frame in files for request in frame["request_id"]] == found

    def test_takes_as_many_rows_as_asked_for_and_the_same_again(self, tmp_path: Path) -> None:
        for day in (1, 2, 3):
            self.write(tmp_path, day, self.table(*(f"r{day}-{i}" for i in range(50))))
        some = served_rows(tmp_path, ["tokens", "request_id"], sample=40)
        assert some.shape == (40, 2)
        assert some["request_id"].n_unique() == 40
        assert some.equals(served_rows(tmp_path, ["tokens", "request_id"], sample=40))
        assert served_rows(tmp_path, ["tokens"], sample=1000).height == 150

    def test_goes_on_without_files_that_are_deleted_while_it_reads(self, tmp_path: Path) -> None:
        for day in (1, 2, 3):
            self.write(tmp_path, day, self.table(f"r{day}"))
        files = served_files(tmp_path, ["request_id"])
        read = [next(files)]
        (tmp_path / "day=2026-03-02" / "served-1.parquet").unlink()
        read += files
        assert [frame["request_id"].item() for _, frame in read] == ["r1", "r3"]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (
                SERVED.empty_table().drop_columns(["tokens"]),
                "day=2026-03-01/served-1.parquet: column 'tokens' is missing",
            ),
            (pa.table({"tokens": ["3"]}), "column 'tokens' is String, expected Int32"),
            (SERVED.empty_table(), "the log holds no rows"),
        ],
    )
    def test_names_what_does_not_fit(self, tmp_path: Path, table: pa.Table, message: str) -> None:
        self.write(tmp_path, 1, table)
        with pytest.raises(LogError, match=message):
            served_rows(tmp_path, ["tokens"])

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("tokens", None),
            ("recent_screens", None),
            ("recent_screens", ["home", None]),
            ("product_usage_60d", [{"product": "loans", "uses": None}]),
            ("product_usage_60d", [None]),
            ("degraded", None),
        ],
    )
    def test_names_a_column_that_holds_nulls(self, tmp_path: Path, column: str, value: object) -> None:
        fitting = {"tokens": 3, "recent_screens": [], "product_usage_60d": [], "degraded": []}
        self.write(tmp_path, 1, pa.Table.from_pylist([fitting, fitting | {column: value}], SERVED))
        with pytest.raises(LogError, match=f"served-1.parquet: column '{column}' holds nulls"):
            served_rows(tmp_path, [*fitting])

    def test_names_a_file_whose_texts_are_not_utf8(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, pa.table({"request_id": not_utf8(["r", "\u00e9"])}))
        with pytest.raises(LogError, match=r"served-1\.parquet: not a readable Parquet file: .*UTF8"):
            served_rows(tmp_path, ["request_id"])

    @settings(max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
    def test_a_file_with_damaged_bytes_is_read_or_named(
        self, tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
    ) -> None:
        log = tmp_path_factory.mktemp("log")
        self.write(log, 1, self.table(*(f"r{number}" for number in range(20))))
        file = log / "day=2026-03-01" / "served-1.parquet"
        content = bytearray(file.read_bytes())
        for place, byte in damage:
            content[place % len(content)] = byte
        file.write_bytes(content)
        with suppress(LogError):
            served_rows(log, ["request_id", "tokens", "text"])

    def test_names_a_damaged_file(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1, self.table("r1"))
        file = tmp_path / "day=2026-03-01" / "served-1.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(LogError, match=r"served-1.parquet: not a readable Parquet file"):
            served_rows(tmp_path, ["tokens"])
