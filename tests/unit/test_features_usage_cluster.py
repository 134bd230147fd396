"""Usage into a Redis Cluster of which a node has gone."""

import pickle
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from redis.exceptions import RedisError

from features.usage_writer import UsageWriter
from tests.unit.redis_process import RedisProcess, cluster_port, join

USES = pl.DataFrame({"user_id": [f"u{number}" for number in range(99)], "product": "loans", "uses": 1})


@pytest.mark.parametrize("end", [RedisProcess.kill, RedisProcess.hang])
def test_what_a_lost_node_raises_travels_from_a_worker(tmp_path: Path, end: Callable[[RedisProcess], None]) -> None:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000")
    with (
        RedisProcess(tmp_path / "a", *options, port=cluster_port()) as a,
        RedisProcess(tmp_path / "b", *options, port=cluster_port()) as b,
    ):
        join([a, b])
        end(b)
        writer = UsageWriter(f"redis+cluster://127.0.0.1:{a.port}?socket_timeout=0.1")
        with pytest.raises(RedisError) as raised:
            writer.write("run", 0, USES)
        assert repr(pickle.loads(pickle.dumps(raised.value))) == repr(raised.value)
