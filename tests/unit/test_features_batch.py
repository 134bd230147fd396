"""The batch pipeline without Ray: windows, versions of runs, and any log from files to Redis."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis import Redis

from features.batch import OlderRun, Window, refuse_older, run_id, window_of
from features.partials import BUCKETS, Partial, Partials
from features.usage_writer import UsageWriter
from features.window_sums import window_sums
from tests.unit.event_logs import Use, build, counted, write

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
            stored = {
                key.removeprefix("usage:run:"): {product: int(uses) for product, uses in client.hgetall(key).items()}
                for key in client.scan_iter("usage:run:*")
            }
        assert stored == counted(days)
        assert users == len(stored)
