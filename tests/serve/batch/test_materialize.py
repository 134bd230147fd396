"""The batch pipeline on a real Ray and a real Redis: what it counts, and what it refuses."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from redis import Redis

from features.batch import Window, window_of
from features.parquet_columns import LogError
from features.partials import BUCKETS
from features.simulate import simulate
from features.usage import RUN_KEY, usage_key
from features.usage_writer import UsageWriter
from tests.serve.batch.usage import AS_OF, DAYS, USES, WINDOW, run, seen
from tests.unit.event_logs import Uses, counted, table, write
from tests.unit.usage_values import stored

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


class TestRun:
    def test_the_uses_of_the_window_and_a_summary(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        write(log, AS_OF, [("u1", "not yet")])
        write(log, WINDOW.first - timedelta(1), [("u1", "no more")])
        summary = run(log, writer)
        assert stored(client, summary["run"]) == counted(USES.values())
        assert seen(writer.redis_url, "u1", "nobody") == [{"a": 3, "b": 1}, {}]
        assert window_of(summary["run"]) == WINDOW
        expected: dict[str, Any] = {
            "published": True,
            "days_read": 3,
            "days_reused": 0,
            "days_missing": 0,
            "users": 9,
            "malformed": 0,
        }
        expected |= {"events": 13, "duplicates": 0, "quarantine": None, "buckets_reused": 0}
        assert {name: summary[name] for name in expected} == expected
        assert 0 < client.ttl(usage_key(summary["run"], "u1")) <= writer.ttl_s

    def test_the_same_again_is_the_same_run(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        first = run(log, writer)
        client.expire(usage_key(first["run"], "u1"), 600)
        again = run(log, writer)
        assert (again["run"], again["users"], again["days_read"]) == (first["run"], first["users"], 0)
        assert stored(client, again["run"]) == counted(USES.values())
        assert client.ttl(usage_key(first["run"], "u1")) > 600
        assert set(client.scan_iter("usage*")) == {RUN_KEY, *client.scan_iter(f"usage:{first['run']}:*")}

    def test_the_next_day_reads_one_day_and_drops_one(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        run(log, writer)
        assert seen(writer.redis_url, "gone") == [{"a": 1}]
        write(log, AS_OF, [("u1", "new")])
        summary = run(log, writer, Window(AS_OF + timedelta(1), DAYS))
        assert (summary["days_read"], summary["days_reused"]) == (1, 2)
        assert stored(client, summary["run"]) == counted([USES[2], USES[1], [("u1", "new")]])
        assert seen(writer.redis_url, "gone", "u1") == [{}, {"a": 1, "new": 1}]

    def test_a_day_that_changed_is_read_again(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        before = run(log, writer)
        write(log, WINDOW.last, [("u5", "a")], "part-00001.parquet")
        (log / f"day={WINDOW.first}" / "part-00000.parquet").unlink()
        after = run(log, writer)
        assert (after["days_read"], after["days_reused"], after["days_missing"]) == (2, 1, 0)
        assert after["run"] != before["run"]
        assert stored(client, after["run"]) == counted([USES[2], USES[1], [("u5", "a")]])

    def test_a_day_that_is_no_longer_there_does_not_count(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        run(log, writer)
        (log / f"day={WINDOW.first}" / "part-00000.parquet").unlink()
        (log / f"day={WINDOW.first}").rmdir()
        summary = run(log, writer)
        assert (summary["days_reused"], summary["days_missing"]) == (2, 1)
        assert stored(client, summary["run"]) == counted([USES[2], USES[1]])

    def test_a_run_may_stay_unpublished(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        summary = run(log, writer, publish=False)
        assert (summary["published"], client.get(RUN_KEY)) == (False, None)
        published = run(log, writer)
        assert (published["run"], published["users"]) == (summary["run"], summary["users"])
        assert published["buckets_reused"] == BUCKETS
        assert client.get(RUN_KEY) == summary["run"]

    def test_a_simulated_log_gives_what_polars_gives(self, tmp_path: Path, writer: UsageWriter, client: Redis) -> None:
        simulate(tmp_path, users=150, days=4, end=AS_OF, messages=1, files_per_day=2, malformed=0.05, progress=False)
        summary = run(tmp_path / "usage", writer)
        days = pl.date_range(WINDOW.first, WINDOW.last, eager=True).cast(pl.String)
        rows = pl.read_parquet(tmp_path / "usage/**/*.parquet", hive_partitioning=True, try_parse_hive_dates=False)
        rows = rows.filter(pl.col("day").is_in(days.implode()))
        text = pl.all_horizontal(pl.col("event_id", "user_id", "product").str.len_chars() > 0).fill_null(False)
        fits = rows.filter(text & (pl.col("at").dt.strftime("%Y-%m-%d") == pl.col("day")))
        uses = fits.unique("event_id").group_by("user_id", "product").len()
        expected: Uses = {}
        for user, product, number in uses.iter_rows():
            expected.setdefault(user, {})[product] = number
        assert stored(client, summary["run"]) == expected
        assert 0 < summary["malformed"] == rows.height - fits.height
        assert summary["events"] == uses["len"].sum() == fits.height - summary["duplicates"]
        reasons = pl.read_parquet(f"{summary['quarantine']}/*.parquet", hive_partitioning=False)["reason"]
        assert (reasons.len(), reasons.null_count()) == (summary["malformed"], 0)


class TestRefusal:
    def test_a_log_that_does_not_fit_is_named_and_nothing_shows(
        self, log: Path, writer: UsageWriter, client: Redis
    ) -> None:
        before = run(log, writer)["run"]
        bad = write(log, WINDOW.last, table([("u", "a")], user_id=pa.array([1])), "part-00001.parquet")
        with pytest.raises(LogError, match=f"{bad}: column 'user_id' is Int64, expected text"):
            run(log, writer)
        bad.write_bytes(bad.read_bytes()[:-20])
        with pytest.raises(LogError, match=f"{bad}: not a readable Parquet file"):
            run(log, writer)
        assert client.get(RUN_KEY) == before
        bad.unlink()
        assert run(log, writer)["run"] == before

    def test_a_window_without_days_is_refused(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        with pytest.raises(LogError, match="no day from 2026-12-29 to 2026-12-31"):
            run(log, writer, Window(date(2027, 1, 1), DAYS))
        for days in (0, 10**6):
            with pytest.raises(ValueError, match=f"a window of {days} days before 2026-11-01: expected 1 to "):
                Window(AS_OF, days)
        assert client.keys() == []
