"""Usage in Redis lives for a time, whoever dies while it is written; what is not usage counts for nothing."""

import json
import socket
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis.asyncio import Connection, Redis

from features.store import FeatureStore
from features.usage import MAX_USES, SHARDS, decode, encode, shard, usage_key
from features.usage_wire import transactions_of, values_of
from features.usage_writer import UsageWriter

USES = {"ana": {"loans": 3, "credit_card": 20}, "bo": {"loans": 1}, "çi": {"loans": 2}}
MANY = {f"product {number}": number for number in range(1, 9_002)}


class Recorder(Connection):
    """A connection that keeps what it sends."""

    sent = b""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        Recorder.sent += b"".join([command] if isinstance(command, bytes) else command)
        await super().send_packed_command(command, check_health)


def by_writer() -> bytes:
    """What the batch pipeline sends."""
    rows = [(user, product, uses) for user, pairs in USES.items() for product, uses in pairs.items()]
    schema = {"user_id": pl.String, "product": pl.Categorical, "uses": pl.Int64}
    values = values_of("r1", pl.DataFrame(rows, schema, orient="row"))
    return str(transactions_of(values, 60).str.join("").item()).encode()


async def by_store(server: LocalRedis) -> bytes:
    """What a `FeatureStore` sends."""
    async with Redis(port=server.port, decode_responses=True) as redis:
        redis.connection_pool.connection_class = Recorder
        Recorder.sent = b""
        await FeatureStore(redis).write_usage("r1", USES)
    return Recorder.sent


def sent_up_to(port: int, content: bytes) -> None:
    """Send it as a client that dies thereafter; the server has seen it when it hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def neighbours() -> tuple[str, str]:
    """Two users of the same shard."""
    found: dict[int, str] = {}
    for user in map(str, range(SHARDS + 1)):
        if shard(user) in found:
            return found[shard(user)], user
        found[shard(user)] = user
    raise AssertionError


@pytest.mark.parametrize("writer", ["batch pipeline", "store"])
async def test_a_writer_that_dies_leaves_nothing_that_lives_for_ever(
    redis: Redis, redis_server: LocalRedis, writer: str
) -> None:
    sent = by_writer() if writer == "batch pipeline" else await by_store(redis_server)
    for length in range(len(sent) + 1):
        await redis.flushall()
        sent_up_to(redis_server.port, sent[:length])
        lives = {key: await redis.ttl(key) for key in await redis.keys("usage:*")}
        assert all(left > 0 for left in lives.values()), (length, lives)
    assert lives.keys() == {usage_key("r1", user) for user in USES}


async def test_any_number_of_products_is_written(redis: Redis, redis_server: LocalRedis) -> None:
    frame = pl.DataFrame({"user_id": ["ana"] * len(MANY), "product": list(MANY), "uses": list(MANY.values())})
    UsageWriter(redis_server.url).write("r1", 0, frame.cast({"product": pl.Categorical}))
    await FeatureStore(redis).write_usage("r2", {"ana": MANY})
    for run in ("r1", "r2"):
        assert json.loads(await redis.hget(usage_key(run, "ana"), "ana") or "") == MANY


async def test_a_user_who_is_written_later_leaves_the_others_their_time(redis: Redis) -> None:
    store, (first, second) = FeatureStore(redis), neighbours()
    await store.write_usage("r1", {first: {"loans": 1}}, 1000)
    await store.write_usage("r1", {second: {"loans": 2}}, 60)
    assert 990 < await redis.ttl(usage_key("r1", first)) <= 1000
    await store.write_usage("r1", {second: {}}, 60)
    assert await redis.hkeys(usage_key("r1", first)) == [first]


async def test_a_user_who_uses_nothing_any_more_has_no_value(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.write_usage("r1", {"ana": {"loans": 1}})
    await store.write_usage("r1", {"ana": {}})
    assert await redis.keys() == []


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, MAX_USES)))
def test_a_value_is_read_as_it_was_written(uses: dict[str, int]) -> None:
    assert decode(encode(uses).decode()) == uses


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON))
def test_of_an_object_its_whole_numbers_count(value: dict[str, object]) -> None:
    counted = {name: n for name, n in value.items() if type(n) is int and 0 <= n <= MAX_USES}
    assert decode(json.dumps(value)) == counted


@given(st.text() | JSON.filter(lambda value: not isinstance(value, dict)).map(json.dumps))
@example("[" * 100_000)
@example('{"loans":' + "[" * 100_000 + "]" * 100_000 + "}")
@example('{"loans":1')
@example("\ud800")
def test_what_is_no_object_counts_for_nothing(value: str) -> None:
    assert decode(value) == {}
