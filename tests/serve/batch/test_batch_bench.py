"""The benchmark of `materialize` says what it measured and leaves nothing behind."""

from pathlib import Path

import pytest
from redis import Redis

from features.batch_bench import measure
from features.event_log import LogError
from features.usage_writer import UsageWriter
from tests.serve.batch.usage import WINDOW
from tests.unit.event_logs import write

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


def test_all_is_measured_and_cleared(log: Path, tmp_path: Path, writer: UsageWriter, client: Redis) -> None:
    client.set("usage:run", "mine")
    (tmp_path / "kept").mkdir()
    found = measure(log, writer.redis_url, rounds=2, threads=1, folder=tmp_path / "kept")
    assert found["window"] == [str(WINDOW.first), "2026-10-30"]
    assert (found["events"], found["users"]) == (11, 8)
    seconds = {"polars_s", "aggregation_s", "full_s", "next_day_s"}
    assert [set(times) for times in found["rounds"]] == [seconds, seconds]
    assert seconds < set(found)
    assert min(found["aggregation_over_polars"], found["full_over_next_day"]) > 0
    peaks = found["peak_mib"]
    assert min(peaks.values()) > 10
    assert max(peaks["driver"], peaks["workers"], peaks["ray"]) < peaks["all"]
    assert client.keys() == ["usage:run"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_log_of_one_day_has_no_next_day(tmp_path: Path, writer: UsageWriter) -> None:
    write(tmp_path / "one", WINDOW.first, [("u", "a")])
    with pytest.raises(LogError, match="one: has only 2026-10-29, expected two days or more"):
        measure(tmp_path / "one", writer.redis_url, 1, 1)
