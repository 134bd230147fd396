"""The feature store and the ingester through every kind of connection: Redis Cluster, password, TLS."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError

from features.erasure import erase_online
from features.schema import SCREEN_STREAM, ScreenEvent, UserFeatures
from features.store import FeatureStore, connect
from features.stream import ScreenIngester, publish
from tests.unit.redis_process import RedisProcess, cluster_port, join, replicate
from tests.unit.tls_front import certify, tls_front

PASSWORD = "p w:@/+"
CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "15000")
USERS = [f"u{i}" for i in range(40)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisProcess]]:
    """A Redis Cluster of two nodes with a password."""
    folder = tmp_path_factory.mktemp("cluster")
    a = RedisProcess(folder / "a", *CLUSTER, port=cluster_port(), password=PASSWORD)
    with a, RedisProcess(folder / "b", *CLUSTER, port=cluster_port(), password=PASSWORD) as b:
        join([a, b])
        yield [a, b]


def url_of(node: RedisProcess, password: str = PASSWORD, scheme: str = "redis+cluster") -> str:
    return f"{scheme}://:{quote(password, safe='')}@127.0.0.1:{node.port}/0"


@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_certificate_that_is_not_there_is_named(scheme: str, option: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"named by {option}: '{tmp_path}/missing.pem'"):
        connect(f"{scheme}://h:6379/0?{option}={tmp_path}/missing.pem", 1.0)


def event(user: str, screen: str = "home") -> ScreenEvent:
    return ScreenEvent(f"{user}-{screen}", user, screen, datetime.now(UTC))


async def test_a_cluster_stores_and_returns_features(nodes: list[RedisProcess]) -> None:
    redis = connect(url_of(nodes[0]), 60.0)
    store = FeatureStore(redis)
    await store.write_screens([event(user, screen) for user in USERS for screen in ("home", user)])
    await store.write_usage("r1", {user: {"loans": i + 1} for i, user in enumerate(USERS)})
    await store.publish_run("r1")
    expected = [UserFeatures(("home", user), {"loans": i + 1}) for i, user in enumerate(USERS)]
    assert await store.read(USERS) == expected
    for node in nodes:
        with node.client as client:
            assert client.dbsize() > len(USERS) / 2
    await redis.aclose()


async def test_a_read_costs_each_node_one_round_trip(nodes: list[RedisProcess]) -> None:
    redis = connect(url_of(nodes[1]), 60.0)
    store = FeatureStore(redis)
    await store.read(USERS)
    for node in nodes:
        with node.client as client:
            reads = [int(client.info("stats")["total_reads_processed"])]
            await store.read(USERS)
            reads.append(int(client.info("stats")["total_reads_processed"]))
        assert reads[1] - reads[0] == 2  # the read, and INFO itself
    await redis.aclose()


async def test_users_are_erased_from_all_nodes_of_a_cluster(nodes: list[RedisProcess]) -> None:
    redis, users = connect(url_of(nodes[0]), 60.0), [f"erased{i}" for i in range(40)]
    store = FeatureStore(redis)
    await store.write_screens([event(user) for user in users])
    await store.write_usage("r2", {user: {"loans": 1} for user in users})
    await store.publish_run("r2")
    await publish(redis, event(users[0]))
    erased = await erase_online(redis, users[:20])
    left = [bool(user.recent_screens or user.product_usage_60d) for user in await store.read(users)]
    await redis.aclose()
    assert erased == {"events": 1, "dead_letters": 0, "feedback": 0, "screens": 20, "usage": 20}
    assert left == [False] * 20 + [True] * 20


async def test_the_ingester_works_on_a_cluster(nodes: list[RedisProcess]) -> None:
    redis = connect(url_of(nodes[0]), 60.0)
    ingester = ScreenIngester(redis, FeatureStore(redis))
    for user in USERS:
        await publish(redis, event(user, "card"))
    await redis.xadd(SCREEN_STREAM, {"event_id": "poison"})
    while ingester.stored + ingester.dead <= len(USERS):
        await ingester.step()
    assert (ingester.stored, ingester.dead) == (len(USERS), 1)
    assert await redis.xlen(f"{SCREEN_STREAM}:dead") == 1
    assert {features.recent_screens[-1] for features in await FeatureStore(redis).read(USERS)} == {"card"}
    await ingester.housekeep()
    assert ingester.lag == 0
    await redis.aclose()


@pytest.mark.parametrize("wrong", ["password", "not a cluster", "nobody there"])
async def test_a_cluster_that_cannot_be_used_is_an_error_like_any_other(
    nodes: list[RedisProcess], redis_server: LocalRedis, wrong: str
) -> None:
    urls = {
        "password": url_of(nodes[0], "wrong"),
        "not a cluster": redis_server.url.replace("redis://", "redis+cluster://"),
        "nobody there": "redis+cluster://127.0.0.1:1/0",
    }
    redis = connect(urls[wrong], 60.0)
    for _ in range(2):
        with pytest.raises((RedisError, OSError)):
            await FeatureStore(redis).read(USERS)
        with pytest.raises((RedisError, OSError)):
            await publish(redis, event("ana"))
    await redis.aclose()


async def test_a_wrong_password_is_tried_once(tmp_path: Path) -> None:
    """Each attempt costs a connection, and a server's log may count them against the user."""
    with RedisProcess(tmp_path, password=PASSWORD) as server:
        redis = connect(url_of(server, "wrong", "redis"), 60.0)
        with server.client as client:
            before = int(client.info("stats")["total_connections_received"])
            with pytest.raises(RedisError, match="invalid username-password pair"):
                await FeatureStore(redis).read(["ana"])
            assert int(client.info("stats")["total_connections_received"]) == before + 1
        await redis.aclose()


async def test_a_reader_with_a_short_deadline_follows_a_failover(tmp_path: Path) -> None:
    """The node hangs, it neither answers nor refuses, so that the caller always gives up first."""
    a, b, replica = (RedisProcess(tmp_path / name, *CLUSTER, port=cluster_port()) for name in "abc")
    with a, b, replica:
        join([a, b])
        redis = connect(f"redis+cluster://127.0.0.1:{a.port}/0", 3.0)
        store = FeatureStore(redis)
        await store.write_screens([event(user) for user in USERS])
        replicate([a, b], b, replica)
        b.hang()
        with replica.client as client:
            client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        failures, features = 0, [UserFeatures()]
        async with asyncio.timeout(120):
            while UserFeatures() in features:
                try:
                    async with asyncio.timeout(0.5):
                        features = await store.read(USERS)
                except TimeoutError:
                    failures += 1
        assert failures > 0
        await redis.aclose()


async def test_learning_the_nodes_outlives_a_caller_that_gives_up(nodes: list[RedisProcess]) -> None:
    client: Any = connect(url_of(nodes[0]), 60.0)
    reading = asyncio.create_task(FeatureStore(client).read(USERS))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    async with asyncio.timeout(120):
        while not client.get_nodes():
            await asyncio.to_thread(nodes[0].answers)
    await client.aclose()


async def test_tls_checks_the_certificate(redis: Redis, redis_server: LocalRedis, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path)
    async with tls_front(redis_server.port, certificate, key) as port:
        trusting = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", 60.0)
        await FeatureStore(trusting).write_screens([event("ana")])
        assert (await FeatureStore(redis).read(["ana"]))[0].recent_screens == ("home",)
        strict = connect(f"rediss://127.0.0.1:{port}/0", 60.0)
        with pytest.raises(RedisError, match="certificate verify failed"):
            await FeatureStore(strict).read(["ana"])
        await trusting.aclose()
        await strict.aclose()


def test_a_cluster_url_takes_the_same_options(tmp_path: Path) -> None:
    ca, _ = certify(tmp_path)
    client: Any = connect(f"rediss+cluster://ann:a%40b@redis.test:7000/0?ssl_ca_certs={ca}", 0.5)
    options = client.get_connection_kwargs()
    assert options["connection_class"] is SSLConnection
    assert {name: options[name] for name in ("username", "password", "ssl_ca_certs", "socket_timeout")} == {
        "username": "ann",
        "password": "a@b",
        "ssl_ca_certs": str(ca),
        "socket_timeout": 0.5,
    }


async def test_idle_connections_that_the_server_has_closed_cost_no_read(tmp_path: Path) -> None:
    """After a restart, a failover or a timeout of idle clients."""
    with RedisProcess(tmp_path) as server:
        redis = connect(f"redis://127.0.0.1:{server.port}/0", 60.0)
        store = FeatureStore(redis)
        await store.write_screens([event("ann")])
        await asyncio.gather(*(store.read(["ann"]) for _ in range(2)))
        server.kill()
        server.start()
        assert await asyncio.gather(*(store.read(["ann"]) for _ in range(2))) == [[UserFeatures(("home",))]] * 2
        server.kill()
        with pytest.raises(RedisConnectionError):
            await store.read(["ann"])
        await redis.aclose()


async def test_a_client_leaves_a_server_that_has_become_a_replica(tmp_path: Path) -> None:
    """At its address, a name or a proxy's, another may be the primary by now: the old connection would never tell."""
    with RedisProcess(tmp_path) as server, server.client as admin:
        redis = connect(f"redis://127.0.0.1:{server.port}/0", 60.0)
        connection = await redis.client_id()
        admin.replicaof("127.0.0.1", server.port)
        for write in (lambda: publish(redis, event("ann")), ScreenIngester(redis, FeatureStore(redis)).step):
            with pytest.raises(ReadOnlyError):
                await write()
            before, connection = connection, await redis.client_id()
            assert connection != before
        await redis.aclose()
