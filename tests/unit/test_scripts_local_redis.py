"""The local Redis server beside another one."""

import os
import signal
from pathlib import Path
from queue import Queue
from shutil import rmtree

import pytest
from local_redis import LocalRedis, RedisUnavailable
from ports import free_port
from redis import Redis


def test_the_server_of_another_process_is_not_taken_for_the_own_one(tmp_path: Path) -> None:
    said: list[str] = []
    port = free_port()
    with LocalRedis(tmp_path / "a", said.append, port), pytest.raises(RedisUnavailable, match="did not start"):
        LocalRedis(tmp_path / "b", said.append, port).__enter__()


def test_two_that_found_the_same_port_free_have_a_server_each(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = (LocalRedis(tmp_path / name, said.append) for name in ("a", "b"))
    first.port = second.port = free_port()
    with first, second:
        assert first.url != second.url
        for server, name in ((first, "a"), (second, "b")):
            with Redis(port=server.port) as client:
                assert client.config_get("dir")["dir"] == str(tmp_path / name)
    assert said == []


def test_it_is_there_once_its_data_is(tmp_path: Path) -> None:
    """Redis answers some commands while it loads, and refuses all others."""
    many = "for i = 1, 200000 do redis.call('SET', 'usage:r:' .. i, i) end"
    for _ in range(2):
        server = LocalRedis(tmp_path, lambda text: None, free_port())
        with server, Redis(port=server.port, socket_timeout=60) as client:
            client.set("written", "at once")
            client.eval(many, 0)
            assert client.dbsize() == 200_001


def test_a_server_that_hangs_is_ended_and_keeps_what_it_has_acknowledged(tmp_path: Path) -> None:
    """A stopped process hears SIGTERM no more than one that a script keeps busy."""
    with LocalRedis(tmp_path, lambda text: None, free_port(), end_s=0.1) as server:
        with Redis(port=server.port) as client:
            client.set("written", "before")
        os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    with LocalRedis(tmp_path, lambda text: None, free_port()) as server, Redis(port=server.port) as client:
        assert client.get("written") == b"before"


def test_it_starts_again_once_its_folder_can_be_made(tmp_path: Path) -> None:
    said: Queue[str] = Queue()
    folder = tmp_path / "redis"
    with LocalRedis(folder, said.put, free_port()) as server:
        rmtree(folder)
        folder.write_text("in the way")
        os.kill(server.pid, signal.SIGKILL)
        assert said.get(timeout=60).startswith("Redis ended (exit code -9)")
        assert said.get(timeout=60) == f"the local Redis cannot use {folder}: File exists"
        folder.unlink()
        assert said.get(timeout=60).startswith("Redis ended (exit code -9)")
        assert said.get(timeout=60) == "Redis runs again"
