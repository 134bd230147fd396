"""The folder of a running service."""

from pathlib import Path

import pytest
from local_redis import LocalRedis, RedisUnavailable
from run_lock import AlreadyRunning, RunLock, StateUnusable


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    with RunLock(folder), pytest.raises(AlreadyRunning), RunLock(folder):
        pass


def test_who_waits_at_the_end_of_another_locks_the_same_file(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        before = (tmp_path / "lock").stat().st_ino
    with RunLock(tmp_path):
        assert (tmp_path / "lock").stat().st_ino == before


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match=r"^--state .*/file/state is not usable: Not a directory$"):
        RunLock(tmp_path / "file" / "state").__enter__()


def test_a_redis_without_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "redis").touch()
    with pytest.raises(RedisUnavailable, match=r"^the local Redis cannot use .*/redis: File exists$"):
        LocalRedis(tmp_path / "redis", lambda text: None).__enter__()
