"""The batch pipeline without Ray: windows, versions of runs, and any log from files to Redis."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis import Redis

from features.batch import OlderRun, Window, materialize, partials_beside, refuse_older, run_id, window_of
from features.parquet_columns import LogError
from features.partials import BUCKETS, Partial, Partials
from features.usage import RUN_KEY, usage_key
from features.usage_writer import LostUsers, UsageWriter
from features.window_sums import window_sums
from tests.unit.event_logs import Use, build, counted, table, write
from tests.unit.usage_values import stored

AS_OF = date(2026, 11, 25)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
USES = st.lists(
    st.tuples(st.sampled_from(["u1", "u 2", "u:3"]) | TEXT, st.sampled_from(["a", "\r\n"]) | TEXT), max_size=9
)


class TestWindow:
    def test_the_days_before_and_not_the_day_itself(self) -> None:
        window = Window(AS_OF, 3)
        assert window.dates() == [date(2026, 11, 22), date(2026, 11, 23), date(2026, 11, 24)]
        assert (window.first, window.last) == (window.dates()[0], window.dates()[-1])
        assert len(Window(AS_OF).dates()) == 60

    def test_a_window_reaches_back_to_the_first_day_of_the_calendar(self) -> None:
        longest = (AS_OF - date.min).days
        assert Window(AS_OF, longest).first == date.min
        for days in (0, -1, longest + 1):
            with pytest.raises(ValueError, match=f"a window of {days} days before 2026-11-25: expected 1 to {longest}"):
                Window(AS_OF, days)


class TestRunId:
    def test_it_tells_the_window_and_changes_with_the_content_alone(self) -> None:
        partials = [Partial("2026-11-23", "s", 1, 2, 3, "d"), Partial("2026-11-24", "s", 1, 2, 3, "e")]
        run = run_id(Window(AS_OF), partials)
        assert window_of(run) == Window(AS_OF)
        touched = [Partial("2026-11-23", "t", 9, 9, 9, "d"), partials[1]]
        assert run_id(Window(AS_OF), touched) == run
        others = [
            run_id(Window(AS_OF), partials[:1]),
            run_id(Window(AS_OF), [partials[0], Partial("2026-11-24", "s", 1, 2, 3, "f")]),
            run_id(Window(AS_OF), [Partial("2026-11-22", "s", 1, 2, 3, "d"), partials[1]]),
            run_id(Window(AS_OF, 30), partials),
            run_id(Window(AS_OF + timedelta(1)), partials),
        ]
        assert len({run, *others}) == 6

    @pytest.mark.parametrize("run", ["demo", "", "2026-11-25-60d-0123abc", "2026-11-25-60d-0123abcde", "2026-11-25"])
    def test_other_runs_have_no_window(self, run: str) -> None:
        assert window_of(run) is None


class TestOlder:
    @pytest.mark.parametrize("present", ["2026-11-26-60d-0123abcd", "2027-01-01-1d-0123abcd"])
    def test_a_window_is_older_than_a_run_of_a_later_day(self, present: str) -> None:
        with pytest.raises(OlderRun, match=rf"{present}, .* as of {AS_OF}: .*--allow-older"):
            refuse_older(Window(AS_OF), present)

    @pytest.mark.parametrize(
        "present", [None, "", "demo", "2026-11-25-60d-0123abcd", "2026-11-25-30d-89abcdef", "2026-11-24-60d-0123abcd"]
    )
    def test_and_not_than_one_of_the_same_day_or_of_no_day(self, present: str | None) -> None:
        refuse_older(Window(AS_OF), present)


class TestPartialsOf:
    def test_are_beside_the_log_whatever_it_is_called(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        beside = tmp_path.with_name(f"{tmp_path.name}.partials")
        assert [partials_beside(log).folder for log in (tmp_path, tmp_path / "a" / "..")] == [beside, beside]
        assert partials_beside(Path()).folder == Path.cwd().with_name(f"{Path.cwd().name}.partials")

    def test_of_a_log_without_a_name_must_be_elsewhere(self) -> None:
        with pytest.raises(LogError, match=r"^/: nothing can be kept beside it: give --partials$"):
            partials_beside(Path("/"))


class TestMaterialize:
    """Where a killed attempt has written all of the partials, or all of the run: Ray has nothing to do."""

    @pytest.fixture
    def writer(self, redis_server: LocalRedis) -> UsageWriter:
        with Redis.from_url(redis_server.url) as client:
            client.flushall()
        return UsageWriter(redis_server.url, 1000)

    @pytest.mark.parametrize("publish", [True, False])
    def test_of_a_log_that_is_malformed_throughout_is_refused(
        self, tmp_path: Path, writer: UsageWriter, publish: bool
    ) -> None:
        """Else readers would take it for users without any usage."""
        partials = Partials(tmp_path / "partials")
        for day in (AS_OF - timedelta(2), AS_OF - timedelta(1)):
            write(tmp_path / "usage", day, table([("u1", "a"), ("", "b")], AS_OF))
        build(tmp_path / "usage", partials)
        reason = f"usage: no row from 2026-11-22 to 2026-11-24 fits; 4 are in {partials.folder}/quarantine"
        with pytest.raises(LogError, match=reason):
            materialize(tmp_path / "usage", Window(AS_OF, 3), writer, partials, publish=publish)
        with Redis.from_url(writer.redis_url) as client:
            assert client.keys() == []

    @pytest.mark.parametrize("rows", [[], None])
    def test_of_a_log_without_rows_is_refused(
        self, tmp_path: Path, writer: UsageWriter, rows: list[tuple[str, str]] | None
    ) -> None:
        """An upload that failed leaves such days, as files or as empty folders; the run before stays."""
        partials, day = Partials(tmp_path / "partials"), AS_OF - timedelta(1)
        if rows is None:
            (tmp_path / "usage" / f"day={day}").mkdir(parents=True)
        else:
            write(tmp_path / "usage", day, rows)
        build(tmp_path / "usage", partials)
        with pytest.raises(LogError, match=r"usage: no row from 2026-11-22 to 2026-11-24$"):
            materialize(tmp_path / "usage", Window(AS_OF, 3), writer, partials)
        assert writer.present() is None

    def test_of_a_resumed_run_shows_it_as_long_as_its_values_live(self, tmp_path: Path, writer: UsageWriter) -> None:
        partials, window = Partials(tmp_path / "partials"), Window(AS_OF, 3)
        write(tmp_path / "usage", AS_OF - timedelta(1), [("u1", "a")])
        run = self._killed(tmp_path / "usage", window, writer, partials)
        with Redis.from_url(writer.redis_url, decode_responses=True) as client:
            for key in client.scan_iter("*"):
                client.expire(key, client.ttl(key) - 300)
            summary = materialize(tmp_path / "usage", window, writer, partials)
            assert (summary["run"], summary["buckets_reused"]) == (run, BUCKETS)
            assert 0 <= client.pttl(usage_key(run, "u1")) - client.pttl(RUN_KEY) < 10_000

    @pytest.mark.parametrize("publish", [True, False])
    def test_of_a_run_that_redis_has_lost_a_part_of_is_refused_and_begins_anew(
        self, tmp_path: Path, writer: UsageWriter, publish: bool
    ) -> None:
        """Else readers would take it for users without any usage."""
        partials, window = Partials(tmp_path / "partials"), Window(AS_OF, 3)
        write(tmp_path / "usage", AS_OF - timedelta(1), [("u1", "a"), ("u2", "a"), ("u2", "b")])
        run = self._killed(tmp_path / "usage", window, writer, partials)
        with Redis.from_url(writer.redis_url) as client:
            client.delete(usage_key(run, "u1"))
        with pytest.raises(LostUsers, match=f"{run}: Redis has lost 1 of 2 users.*run again"):
            materialize(tmp_path / "usage", window, writer, partials, publish=publish)
        assert (writer.present(), writer.begin(run).users) == (None, {})

    def test_of_a_prefix_is_a_run_of_its_own(self, tmp_path: Path, writer: UsageWriter) -> None:
        partials, window = Partials(tmp_path / "partials"), Window(AS_OF, 3)
        write(tmp_path / "usage", AS_OF - timedelta(1), [("u1", "a")])
        live = self._killed(tmp_path / "usage", window, writer, partials)
        self._killed(tmp_path / "usage", window, writer, partials, "bench-1-")
        summary = materialize(tmp_path / "usage", window, writer, partials, publish=False, prefix="bench-1-")
        assert summary["run"] == f"bench-1-{live}"

    @staticmethod
    def _killed(log: Path, window: Window, writer: UsageWriter, partials: Partials, prefix: str = "") -> str:
        """Write all but what readers see."""
        made = build(log, partials)
        run = prefix + run_id(window, made)
        for number in range(BUCKETS):
            writer.write(run, number, window_sums(partials, number, made))
        return run


class TestPipeline:
    @settings(max_examples=20)
    @given(st.lists(USES, min_size=1, max_size=3))
    def test_any_log_arrives_in_redis_as_a_plain_count(
        self, redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory, days: list[list[Use]]
    ) -> None:
        folder = tmp_path_factory.mktemp("log")
        for number, uses in enumerate(days):
            write(folder / "usage", AS_OF + timedelta(number), uses)
        partials, writer = Partials(folder / "partials"), UsageWriter(redis_server.url)
        window = build(folder / "usage", partials)
        with Redis.from_url(redis_server.url, decode_responses=True) as client:
            client.flushall()
            users = sum(writer.write("run", number, window_sums(partials, number, window)) for number in range(BUCKETS))
            found = stored(client, "run")
        assert found == counted(days)
        assert users == len(found)
