"""Daily partials: what they sum, in which bucket, and when they are made again."""

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event_log import day_files
from features.parquet_columns import LogError
from features.partials import BUCKETS, Partials
from tests.unit.event_logs import DAY, USES, Use, all_buckets, as_dict, build, counted, table, write

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(
    ["a b", "x:y", "\r\n", "$3\r\n", "\0"]
)
DAY_OF_USES = st.lists(st.tuples(st.sampled_from(["u1", "u2"]) | TEXT, st.sampled_from(["a", "b"]) | TEXT), max_size=12)
ROOT = Path(__file__).resolve().parent.parent.parent


class TestContent:
    @given(DAY_OF_USES)
    def test_uses_are_those_of_a_plain_count(self, tmp_path_factory: pytest.TempPathFactory, uses: list[Use]) -> None:
        folder = tmp_path_factory.mktemp("log")
        write(folder / "usage", DAY, uses)
        partials = Partials(folder / "partials")
        (partial,) = build(folder / "usage", partials)
        assert all_buckets(partials, partial) == counted([uses])
        assert (partial.rows, partial.malformed, partial.duplicates) == (len(uses), 0, 0)

    def test_a_user_is_in_one_bucket_on_all_days(self, log: Path, partials: Partials) -> None:
        days = [DAY, DAY.replace(day=2)]
        for day in days:
            write(log, day, [(f"u{number}", "a") for number in range(500)])
        made = build(log, partials)
        found = [[set(partials.read(number, [day])["user_id"]) for number in range(BUCKETS)] for day in made]
        assert found[0] == found[1]
        assert sum(map(len, found[0])) == 500
        assert all(found[0])

    def test_reading_several_days_tells_them_apart(self, log: Path, partials: Partials) -> None:
        later = DAY.replace(day=3)
        write(log, later, [("u2", "c")])
        made = build(log, partials)
        frame = pl.concat([partials.read(number, made) for number in range(BUCKETS)])
        assert sorted(frame.cast({"product": pl.String}).rows()) == [
            ("u1", "a", 2, DAY), ("u2", "b", 1, DAY), ("u2", "c", 1, later),
        ]  # fmt: skip

    def test_a_day_may_have_as_many_products_as_it_likes(self, log: Path, partials: Partials) -> None:
        write(log, DAY, uses := [("u", f"p{number}") for number in range(40_000)])
        assert all_buckets(partials, *build(log, partials)) == counted([uses])

    def test_a_day_without_events_has_an_empty_partial(self, log: Path, partials: Partials) -> None:
        partial = partials.build(DAY, [])
        assert partial.rows == 0
        assert all_buckets(partials, partial) == {}
        assert as_dict(partials.read(number, []) for number in range(BUCKETS)) == {}


class TestIdentity:
    @given(DAY_OF_USES, st.randoms(use_true_random=False))
    def test_the_digest_is_that_of_the_counts(
        self, tmp_path_factory: pytest.TempPathFactory, uses: list[Use], random: object
    ) -> None:
        folder = tmp_path_factory.mktemp("log")
        half = len(uses) // 2
        write(folder / "one", DAY, uses)
        write(folder / "two", DAY, table(uses[half:][::-1], first=half), "0.parquet")
        write(folder / "two", DAY, table(uses[:half]), "1.parquet")
        write(folder / "more", DAY, [*uses, ("u1", "a")])
        digests = [
            build(folder / name, Partials(folder / f"{name}.partials"))[0].digest for name in ("one", "two", "more")
        ]
        assert digests[0] == digests[1] != digests[2]

    def test_users_and_products_do_not_flow_into_each_other(self, log: Path, partials: Partials) -> None:
        digests = []
        for uses in ([("ab", "c")], [("a", "bc")], [("ab", "c"), ("ab", "c")], [("c", "ab")]):
            write(log, DAY, uses)
            digests.append(build(log, partials)[0].digest)
        assert len(set(digests)) == len(digests)

    def test_another_process_finds_the_same_buckets_and_digests(self, log: Path, partials: Partials) -> None:
        write(log, DAY, [(f"u{number}", f"p{number % 7}") for number in range(200)])
        mine = build(log, partials)
        buckets = [partials.path(DAY).read_bytes(), all_buckets(partials, *mine)]
        code = (
            "import sys; from pathlib import Path; from features.partials import Partials;"
            "from tests.unit.event_logs import build; build(Path(sys.argv[1]), Partials(Path(sys.argv[2])))"
        )
        other = Partials(partials.folder.with_name("other"))
        command = [sys.executable, "-c", code, str(log), str(other.folder)]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"POLARS_MAX_THREADS": "1"})
        files = day_files(log)[DAY]
        assert other.known(DAY, files) == partials.known(DAY, files) == mine[0]
        for number in range(BUCKETS):
            assert as_dict([other.read(number, mine)]) == as_dict([partials.read(number, mine)])
        assert buckets[1] == all_buckets(other, *mine)


class TestKeeping:
    def test_a_partial_is_known_until_its_files_change(self, log: Path, partials: Partials) -> None:
        file = log / f"day={DAY}" / "part-00000.parquet"
        assert partials.known(DAY, [file]) is None
        (partial,) = build(log, partials)
        assert partials.known(DAY, [file]) == partial
        more = write(log, DAY, USES, "part-00001.parquet")
        assert partials.known(DAY, [file, more]) is None
        assert partials.known(DAY, []) is None
        assert partials.known(DAY, [file]) == partial
        write(log, DAY, [*USES, ("u3", "c")])
        assert partials.known(DAY, [file]) is None

    def test_a_file_that_was_touched_is_read_again_and_means_the_same(self, log: Path, partials: Partials) -> None:
        (before,) = build(log, partials)
        (file,) = day_files(log)[DAY]
        os.utime(file, ns=(1, 1))
        assert partials.known(DAY, [file]) is None
        assert build(log, partials)[0].digest == before.digest

    @given(cut=st.floats(0, 1, exclude_max=True))
    def test_a_truncated_partial_is_not_known(self, tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
        folder = tmp_path_factory.mktemp("log")
        file = write(folder / "usage", DAY, USES)
        partials = Partials(folder / "partials")
        build(folder / "usage", partials)
        content = partials.path(DAY).read_bytes()
        partials.path(DAY).write_bytes(content[: int(cut * len(content))])
        assert partials.known(DAY, [file]) is None

    @pytest.mark.parametrize("metadata", [None, {}, {"switchboard": "{"}, {"switchboard": "[]"}, {"switchboard": "{}"}])
    def test_a_partial_of_another_kind_is_not_known(
        self, log: Path, partials: Partials, metadata: dict[str, str] | None
    ) -> None:
        partials.folder.mkdir()
        with pa.ipc.new_file(str(partials.path(DAY)), pa.schema({"a": pa.int8()}, metadata)):
            pass
        assert partials.known(DAY, day_files(log)[DAY]) is None

    def test_a_failed_attempt_leaves_what_was_there(self, log: Path, partials: Partials) -> None:
        made = build(log, partials)
        before = sorted(path.name for path in partials.folder.rglob("*"))
        (log / f"day={DAY}" / "part-00001.parquet").write_bytes(b"no Parquet")
        with pytest.raises(LogError, match=r"part-00001\.parquet"):
            build(log, partials)
        assert sorted(path.name for path in partials.folder.rglob("*")) == before
        assert all_buckets(partials, *made) == counted([USES])

    def test_a_full_disk_is_told_with_the_option_for_another_folder(self, log: Path, partials: Partials) -> None:
        told = f"{partials.path(DAY)}: .*File too large.*: give another folder with --partials, or make room"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(OSError, match=told):
                build(log, partials)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [path for path in partials.folder.rglob("*") if path.is_file()] == []


class TestQuarantine:
    def test_malformed_rows_are_counted_and_kept_with_their_reasons(self, log: Path, partials: Partials) -> None:
        write(log, DAY, table(USES, user_id=pa.array(["u1", None, ""])))
        (partial,) = build(log, partials)
        assert (partial.rows, partial.malformed) == (1, 2)
        assert all_buckets(partials, partial) == {"u1": {"a": 1}}
        rows = pl.read_parquet(partials.quarantine(DAY), hive_partitioning=False)
        reason = "user_id: missing, or not 1 to 128 characters of UTF-8"
        assert rows.rows() == [
            ("e1", None, "b", "2026-10-01 12:00:00.000000+00:00", reason),
            ("e2", "", "a", "2026-10-01 12:00:00.000000+00:00", reason),
        ]

    def test_a_full_disk_is_an_error_that_names_the_file(self, log: Path, partials: Partials) -> None:
        write(log, DAY, table(USES, user_id=pa.nulls(3)))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(OSError, match=f"{partials.quarantine(DAY)}: .*File too large.*--partials"):
                build(log, partials)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [path for path in partials.folder.rglob("*") if path.is_file()] == []

    def test_a_repaired_day_leaves_the_quarantine(self, log: Path, partials: Partials) -> None:
        write(log, DAY, table(USES, user_id=pa.nulls(3)))
        build(log, partials)
        assert partials.quarantine(DAY).exists()
        write(log, DAY, USES)
        build(log, partials)
        assert not partials.quarantine(DAY).exists()


class TestBatch:
    def test_a_bucket_of_a_day_by_its_digest(self, log: Path, partials: Partials) -> None:
        (partial,) = build(log, partials)
        batches = [partials.batch(number, str(DAY), partial.digest) for number in range(BUCKETS)]
        assert as_dict(pl.DataFrame(pl.from_arrow(batch)) for batch in batches if batch.num_rows) == counted([USES])

    def test_another_content_is_refused(self, log: Path, partials: Partials) -> None:
        (before,) = build(log, partials)
        write(log, DAY, USES[:1])
        build(log, partials)
        for read in (lambda: partials.batch(0, str(DAY), before.digest), lambda: partials.read(0, [before])):
            with pytest.raises(LogError, match=r"day=2026-10-01\.arrow: was replaced, .*: run again"):
                read()

    @pytest.mark.parametrize("bit", range(8))
    def test_a_changed_bit_is_noticed_or_changes_nothing(self, log: Path, partials: Partials, bit: int) -> None:
        uses = [(f"u{n}", "ab"[n % 2]) for n in range(40)]
        written = write(log, DAY, uses)
        (partial,) = build(log, partials)
        content = partials.path(DAY).read_bytes()
        for place in range(bit, len(content), 61):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            partials.path(DAY).write_bytes(changed)
            found = counted([uses])
            if partials.known(DAY, [written]):
                with suppress(LogError):
                    found = all_buckets(partials, partial)
            assert found == counted([uses]), place

    def test_a_missing_or_damaged_file_is_named(self, log: Path, partials: Partials) -> None:
        write(log, DAY, [(f"u{number}", "a") for number in range(5_000)])
        (partial,) = build(log, partials)
        content = partials.path(DAY).read_bytes()
        middle = len(content) // 2
        partials.path(DAY).write_bytes(content[:middle] + b"\xff" * 8_000 + content[middle + 8_000 :])
        damaged = r"day=2026-10-01\.arrow: damaged .*: delete it and run again"
        with pytest.raises(LogError, match=damaged):
            [partials.batch(number, str(DAY), partial.digest) for number in range(BUCKETS)]
        partials.path(DAY).unlink()
        with pytest.raises(LogError, match=damaged):
            partials.batch(0, str(DAY), partial.digest)
