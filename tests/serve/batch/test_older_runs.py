"""A run of an earlier day does not replace that of a later one, unless it is wanted."""

from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from features.batch import OlderRun, Window
from features.partials import BUCKETS
from features.usage import RUN_KEY
from features.usage_writer import UsageWriter
from tests.serve.batch.usage import AS_OF, DAYS, WINDOW, run, seen
from tests.unit.event_logs import write

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
YESTERDAY = Window(AS_OF - timedelta(1), DAYS)


def test_readers_keep_the_newer_one(log: Path, writer: UsageWriter, client: Redis) -> None:
    newer = run(log, writer)["run"]
    with pytest.raises(OlderRun, match=f"readers see {newer}"):
        run(log, writer, YESTERDAY)
    assert client.get(RUN_KEY) == newer
    assert seen(writer.redis_url, "u3") == [{"a": 1}]


def test_a_refused_one_needs_only_to_be_shown(log: Path, writer: UsageWriter, client: Redis) -> None:
    run(log, writer)
    with pytest.raises(OlderRun):
        run(log, writer, YESTERDAY)
    older = run(log, writer, YESTERDAY, allow_older=True)
    assert (client.get(RUN_KEY), older["buckets_reused"]) == (older["run"], BUCKETS)
    assert seen(writer.redis_url, "u3") == [{}]


def test_one_of_the_same_day_replaces_it(log: Path, writer: UsageWriter, client: Redis) -> None:
    first = run(log, writer)["run"]
    write(log, WINDOW.last, [("u3", "late")], "part-00001.parquet")
    second = run(log, writer)["run"]
    assert client.get(RUN_KEY) == second != first
    assert seen(writer.redis_url, "u3") == [{"a": 1, "late": 1}]
