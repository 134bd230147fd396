"""The benchmark of `materialize` says what it measured and leaves nothing behind."""

from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from features.batch import Window
from features.batch_bench import measure
from features.parquet_columns import LogError
from features.usage import RUN_KEY
from features.usage_writer import UsageWriter
from tests.serve.batch.usage import AS_OF, WINDOW, run
from tests.unit.event_logs import write

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


def test_all_is_measured_and_cleared(log: Path, tmp_path: Path, writer: UsageWriter, client: Redis) -> None:
    """But for runs of the same windows and content, which readers may see."""
    live = [run(log, writer, Window(day, 2))["run"] for day in (AS_OF - timedelta(1), AS_OF)]
    before = {key: client.dump(key) for key in client.scan_iter("*")}
    (tmp_path / "kept").mkdir()
    found = measure(log, writer.redis_url, rounds=2, threads=1, folder=tmp_path / "kept")
    assert {key: client.dump(key) for key in client.scan_iter("*")} == before
    assert client.get(RUN_KEY) == live[-1]
    assert found["window"] == [str(WINDOW.first), "2026-10-30"]
    assert (found["events"], found["users"]) == (11, 8)
    seconds = {"polars_s", "aggregation_s", "full_s", "next_day_s"}
    assert [set(times) for times in found["rounds"]] == [seconds, seconds]
    assert seconds < set(found)
    assert min(found["aggregation_over_polars"], found["full_over_next_day"]) > 0
    peaks = found["peak_mib"]
    assert min(peaks.values()) > 10
    assert max(peaks["driver"], peaks["workers"], peaks["ray"]) < peaks["all"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_log_of_one_day_has_no_next_day(tmp_path: Path, writer: UsageWriter) -> None:
    write(tmp_path / "one", WINDOW.first, [("u", "a")])
    with pytest.raises(LogError, match="one: has only 2026-10-29, expected two days or more"):
        measure(tmp_path / "one", writer.redis_url, 1, 1)
