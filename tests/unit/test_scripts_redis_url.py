"""Addresses of Redis: what of them is shown, and what is told when they lead nowhere."""

import asyncio
from pathlib import Path

import pytest
from local_redis import LocalRedis, RedisUnavailable
from ports import free_port
from redis_url import ping, seed, shown

from features.usage import RUN_KEY
from tests.unit.redis_process import RedisProcess


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://127.0.0.1:6380/0", "redis://127.0.0.1:6380/0"),
        ("redis://u:s3cret@h:6379/0", "redis://h:6379/0"),
        ("redis://u:s3@cret@h/0", "redis://h/0"),
        ("rediss://h:6379/0?username=u&password=s3cret", "rediss://h:6379/0"),
        ("rediss+cluster://u:s3cret@[::1]:7000/0?ssl_ca_certs=/ca", "rediss+cluster://[::1]:7000/0"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock"),
        ("redis://u:s3/cret@h:6379/0", "redis://…"),
        ("redis://u:3/cret@h:6379/0", "redis://…"),
        ("redis://u:s3?cret@h:6379/0", "redis://…"),
        ("redis://u:3#cret@h:6379/0", "redis://…"),
        ("redis://h/0?password=s3@cret", "redis://…"),
        ("redis://u:s3cret", "redis://…"),
        ("redis://[s3cret@h", "redis://…"),
        ("redis:u:s3cret@h", "…"),
        ("s3cret@h:6379", "…"),
        ("s3cret://h:6379", "…"),
    ],
)
def test_no_part_of_a_password_is_shown(url: str, what: str) -> None:
    assert shown(url) == what


def test_a_password_with_a_slash_is_not_in_the_message() -> None:
    with pytest.raises(RedisUnavailable) as caught:
        asyncio.run(ping("redis://user:pa/ss@127.0.0.1:6379/0"))
    assert str(caught.value) == (
        "REDIS_URL (redis://…) is not the address of one Redis server (ValueError); "
        "in a password write / as %2F, and other special characters alike"
    )


def test_a_password_that_is_taken_for_a_port_is_not_in_the_message() -> None:
    password = free_port()
    with pytest.raises(RedisUnavailable) as caught:
        asyncio.run(ping(f"redis://127.0.0.1:{password}/ss@h:6379/0"))
    assert str(caught.value) == "REDIS_URL (redis://…) does not answer: ConnectionError"


def test_a_certificate_that_is_not_there_is_named() -> None:
    with pytest.raises(RedisUnavailable, match=r"no such file, named by ssl_ca_certs: '/missing/ca\.pem'"):
        asyncio.run(ping("rediss://127.0.0.1:1/0?ssl_ca_certs=/missing/ca.pem"))


def test_an_unknown_option_is_told_without_its_name() -> None:
    with pytest.raises(RedisUnavailable, match=r"redis://127.0.0.1:1/0\) is not the address .* \(TypeError\)"):
        asyncio.run(ping("redis://127.0.0.1:1/0?s3cret=s3cret"))


def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, password="s3cret") as server, pytest.raises(RedisUnavailable) as caught:
        asyncio.run(ping(f"redis://127.0.0.1:{server.port}/0?password=wr0ng"))
    assert str(caught.value).startswith(f"REDIS_URL (redis://127.0.0.1:{server.port}/0) does not answer: ")
    assert "password" in str(caught.value)
    assert "wr0ng" not in str(caught.value)


def test_a_redis_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    with LocalRedis(tmp_path, said.append, free_port()) as server, RedisProcess(tmp_path / "replica") as replica:
        with replica.client as client:
            client.execute_command("REPLICAOF", "127.0.0.1", server.port)
            client.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "-@all", "+ping")
        for credentials, fault in (("", "ReadOnlyError"), ("reader:s3cret@", "NoPermissionError")):
            with pytest.raises(RedisUnavailable) as caught:
                asyncio.run(seed(f"redis://{credentials}127.0.0.1:{replica.port}/0", said.append))
            where = f"redis://127.0.0.1:{replica.port}/0"
            assert str(caught.value) == f"Redis ({where}) does not let the service read and write usage: {fault}"
    assert said == []


@pytest.mark.parametrize("run_expired", [True, False])
def test_demo_usage_that_has_expired_is_written_again(tmp_path: Path, run_expired: bool) -> None:
    """Also where the run was kept without its users, as a store of an earlier version may be."""
    said: list[str] = []
    with RedisProcess(tmp_path) as server, server.client as client:
        url = f"redis://127.0.0.1:{server.port}/0"
        asyncio.run(seed(url, said.append))
        users = {key for key in client.scan_iter("*") if key != RUN_KEY}
        assert sum(client.hlen(key) for key in users) == 300
        longest = client.ttl(RUN_KEY)  # asked first: what was written before it only gets older
        assert all(0 < client.ttl(key) <= longest for key in users)
        client.delete(*users)
        if run_expired:
            client.delete(RUN_KEY)
        else:
            client.persist(RUN_KEY)
        asyncio.run(seed(url, said.append))
        assert {key for key in client.scan_iter("*") if key != RUN_KEY} == users


def test_demo_users_are_told_of_once(tmp_path: Path) -> None:
    said: list[str] = []
    with RedisProcess(tmp_path) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        for _ in range(2):
            asyncio.run(seed(url, said.append))
        with server.client as client:
            assert client.get(RUN_KEY) == "demo"
    assert said == ["Redis    seeded usage of 300 demo users, u1 to u300"]
