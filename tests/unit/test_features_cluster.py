"""A Redis Cluster that moves a slot while it is read."""

import asyncio
from pathlib import Path

from features.store import FeatureStore, connect
from features.usage import RUN_KEY
from tests.unit.redis_process import SLOTS, RedisProcess, cluster_port, join

CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000")
USERS = [f"u{number}" for number in range(30)]


async def test_a_key_that_has_moved_before_its_slot_is_read(tmp_path: Path) -> None:
    """Over two connections, of which redis-py itself would take one for ASKING and the other for what it is for."""
    a, b = (RedisProcess(tmp_path / name, *CLUSTER, port=cluster_port()) for name in "ab")
    with a, b:
        join([a, b])
        redis = connect(f"redis+cluster://127.0.0.1:{a.port}/0", 60.0)
        store = FeatureStore(redis)
        await store.publish_run("monday")
        await asyncio.gather(*(store.read(USERS) for _ in range(2)))
        _move(a, b, RUN_KEY)
        reading = await store.reading(["u1"])
        await redis.aclose()
    assert reading.usage_run == "monday"


def _move(a: RedisProcess, b: RedisProcess, key: str) -> None:
    """Move a key from the node that has it to the other one, and leave its slot in the middle of its own move."""
    with a.client as one, b.client as other:
        slot = one.execute_command("CLUSTER KEYSLOT", key)
        owner, taker, port = (one, other, b.port) if slot < SLOTS // 2 else (other, one, a.port)
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", owner.execute_command("CLUSTER MYID"))
        owner.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", taker.execute_command("CLUSTER MYID"))
        assert owner.execute_command("MIGRATE", "127.0.0.1", port, key, 0, 60_000) == "OK"
