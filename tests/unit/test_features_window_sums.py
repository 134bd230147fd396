"""Sums over a window: the same whether from all partials or from the sums of the run before."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.parquet_columns import LogError
from features.partials import BUCKETS, SCHEMA, Partial, Partials, checksum
from features.window_sums import total, window_sums
from tests.unit.event_logs import DAY, Use, Uses, as_dict, counted, write

USES = st.lists(st.tuples(st.sampled_from(["u1", "u2", "u3", "ü 4"]), st.sampled_from(["a", "b", "c"])), max_size=6)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 9).map(lambda number: DAY + timedelta(number)),
        st.integers(1, 6),
        st.dictionaries(st.integers(0, 5), USES, max_size=2),
    ),
    min_size=2,
    max_size=4,
)
"""The first day of a window, how many days it has, and days of it whose events changed meanwhile."""


class Log:
    """A usage log, its partials, and what was written, by day."""

    def __init__(self, folder: Path) -> None:
        self.partials = Partials(folder / "partials")
        self._folder, self._uses = folder / "usage", dict[date, Sequence[Use]]()
        self._made = dict[date, Partial]()

    def write(self, day: date, uses: Sequence[Use]) -> None:
        self._uses[day] = uses
        self._made[day] = self.partials.build(day, [write(self._folder, day, uses)])

    def window(self, first: date, days: int) -> list[Partial]:
        return [self._made[day] for day in self._days(first, days)]

    def counted(self, first: date, days: int) -> Uses:
        return counted(self._uses[day] for day in self._days(first, days))

    def summed(self, first: date, days: int) -> Uses:
        window = self.window(first, days)
        return as_dict(window_sums(self.partials, number, window) for number in range(BUCKETS))

    def _days(self, first: date, days: int) -> list[date]:
        return [day for number in range(days) if (day := first + timedelta(number)) in self._uses]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return filled(tmp_path)


def filled(folder: Path) -> Log:
    """A log of six days."""
    log = Log(folder)
    for number in range(6):
        log.write(DAY + timedelta(number), [("u1", "a"), (f"u{number}", "b"), ("u9", f"p{number}")])
    return log


def forget(log: Log, *, but: Sequence[int]) -> None:
    """Delete the partials of all days but these, so that only they and the kept sums can be read."""
    for number in set(range(6)) - set(but):
        log.partials.path(DAY + timedelta(number)).unlink()


class TestWindowSums:
    @settings(max_examples=12)
    @given(st.lists(USES, min_size=8, max_size=8), STEPS)
    def test_any_sequence_of_windows_and_changes(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        days: list[list[Use]],
        steps: list[tuple[date, int, dict[int, list[Use]]]],
    ) -> None:
        log = Log(tmp_path_factory.mktemp("log"))
        for number, uses in enumerate(days):
            log.write(DAY + timedelta(number), uses)
        for first, length, changes in steps:
            for number, uses in changes.items():
                log.write(first + timedelta(number), uses)
            assert log.summed(first, length) == log.counted(first, length)

    def test_the_next_day_reads_only_the_day_that_came_and_the_one_that_left(self, log: Log) -> None:
        log.summed(DAY, 5)
        forget(log, but=[0, 5])
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    def test_the_same_window_again_reads_no_partial(self, log: Log) -> None:
        log.summed(DAY, 5)
        forget(log, but=[])
        assert log.summed(DAY, 5) == log.counted(DAY, 5)

    def test_a_window_of_mostly_other_days_is_summed_from_all_of_them(self, log: Log) -> None:
        log.summed(DAY, 4)
        forget(log, but=[3, 4, 5])
        assert log.summed(DAY + timedelta(3), 3) == log.counted(DAY + timedelta(3), 3)

    def test_a_day_that_was_made_again_is_taken_from_its_new_partial(self, log: Log) -> None:
        log.summed(DAY, 5)
        log.write(DAY + timedelta(2), [("u7", "z")])
        assert log.summed(DAY, 5) == log.counted(DAY, 5)

    def test_a_partial_that_changes_under_the_run_is_an_error(self, log: Log) -> None:
        window = log.window(DAY, 5)
        log.write(DAY + timedelta(2), [("u7", "z")])
        with pytest.raises(LogError, match="run again"):
            window_sums(log.partials, 0, window)

    @pytest.mark.parametrize("content", [b"", b"ARROW1", b"x" * 99, None])
    def test_damaged_sums_are_not_used(self, log: Log, content: bytes | None) -> None:
        log.summed(DAY, 5)
        for path in kept(log):
            path.write_bytes(path.read_bytes()[:-9] if content is None else content)
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    @settings(max_examples=30)
    @given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    @example(place=0.4, bit=0)  # ends the process if polars takes it
    def test_sums_with_a_changed_bit_are_not_used(
        self, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
    ) -> None:
        log = filled(tmp_path_factory.mktemp("log"))
        log.summed(DAY, 5)
        for path in kept(log):
            content = bytearray(path.read_bytes())
            content[int(place * len(content))] ^= 1 << bit
            path.write_bytes(content)
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    @pytest.mark.parametrize("facts", [None, "{", "[]", "{}", '{"days": 3}', '{"days": [["2026-10-01"]]}'])
    def test_sums_that_do_not_tell_their_days_are_not_used(self, log: Log, facts: str | None) -> None:
        log.summed(DAY, 5)
        for path in kept(log):
            rewrite(path, 0, facts)
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    def test_sums_that_do_not_have_their_checksum_are_not_used(self, log: Log) -> None:
        log.summed(DAY, 5)
        for path in kept(log):
            rewrite(path, 1, "kept")
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    def test_sums_that_turn_out_negative_are_not_used(self, log: Log) -> None:
        log.summed(DAY, 5)
        for path in kept(log):
            rewrite(path, -9, "new checksum")
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    def test_the_sums_of_another_version_are_not_used(self, log: Log) -> None:
        log.summed(DAY, 5)
        for path in kept(log):
            version = pl.__version__.encode()
            path.write_bytes(path.read_bytes().replace(version, b"9" * len(version)))
        forget(log, but=range(1, 6))  # without the day that left, kept sums could not be used
        assert log.summed(DAY + timedelta(1), 5) == log.counted(DAY + timedelta(1), 5)

    def test_a_window_without_days_or_events_is_empty(self, log: Log) -> None:
        log.write(DAY + timedelta(9), [])
        assert log.summed(DAY + timedelta(7), 2) == log.summed(DAY + timedelta(8), 2) == {}


class TestTotal:
    @given(st.lists(st.tuples(USES, st.sampled_from([1, 1, -1])), max_size=5), st.integers(0, 40))
    def test_any_batches_with_any_signs(self, parts: list[tuple[list[Use], int]], others: int) -> None:
        """`others` users with a product of their own each: many pairs, few uses."""
        sparse = [(f"v{number}", f"p{number}") for number in range(others)]
        expected: dict[tuple[str, str], int] = {}
        for uses, sign in [*parts, (sparse, 1)]:
            for pair in uses:
                expected[pair] = expected.get(pair, 0) + sign
        sums = total((batch(uses), sign) for uses, sign in [*parts, (sparse, 1)])
        assert list(sums.schema.values()) == [pl.String, pl.Categorical, pl.Int64]
        found = {(user, product): uses for user, product, uses in sums.iter_rows()}
        assert len(found) == sums.height
        assert found == {pair: uses for pair, uses in expected.items() if uses}

    def test_sums_are_exact_beyond_32_bits(self) -> None:
        many = batch([("u", "a")] * 3).set_column(2, "uses", pa.array([2**32 - 1], pa.uint32()))
        assert total([(many, 1)] * 5)["uses"].to_list() == [5 * (2**32 - 1)]


def batch(uses: Sequence[Use]) -> pa.RecordBatch:
    rows = [(user, product, n) for user, products in counted([uses]).items() for product, n in products.items()]
    users, products, numbers = zip(*rows, strict=True) if rows else ((), (), ())
    columns = [pa.array(users, pa.string()), pa.array(products, pa.string()).dictionary_encode()]
    return pa.record_batch([*columns, pa.array(numbers, pa.uint32())], SCHEMA)


def kept(log: Log) -> list[Path]:
    paths = sorted((log.partials.folder / "window").iterdir())
    assert len(paths) == BUCKETS
    return paths


def rewrite(path: Path, more: int, facts: str | None) -> None:
    """Add `more` to all sums, with facts of any kind, the "kept" ones, or those with the "new checksum"."""
    with pa.ipc.open_file(path) as reader:
        rows, metadata = reader.get_batch(0).replace_schema_metadata(None), reader.schema.metadata
    uses = pa.array(rows["uses"].to_numpy() + more)
    changed = rows.set_column(2, rows.schema.field(2), uses)
    known = json.loads(metadata[b"switchboard"])
    new = known | {"checksum": checksum(int(path.stem.removeprefix("bucket=")), changed)}
    told = {"kept": json.dumps(known), "new checksum": json.dumps(new)}.get(facts or "", facts)
    schema = rows.schema.with_metadata(told if told is None else {"switchboard": told})
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_batch(changed.replace_schema_metadata(schema.metadata))


def test_sums_that_cannot_be_kept_are_told_with_the_option_for_another_folder(log: Log) -> None:
    (log.partials.folder / "window").write_text("a file")
    told = f"{log.partials.folder}/window/bucket=0.arrow: .*: give another folder with --partials, or make room"
    with pytest.raises(OSError, match=told):
        window_sums(log.partials, 0, log.window(DAY, 1))
