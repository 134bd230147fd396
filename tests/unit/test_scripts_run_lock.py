"""The folder of a running service."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from local_redis import LocalRedis, RedisUnavailable
from run_lock import AlreadyRunning, RunLock, StateUnusable

SUPERVISE = Path(__file__).resolve().parents[2] / "scripts" / "supervise.py"


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


@pytest.mark.parametrize("bytes_left", [0, 8])
def test_a_disk_that_is_full_is_told(tmp_path: Path, bytes_left: int) -> None:
    """For the lock, or for the note of the folder for sockets: here a limit on the size of files."""
    done = subprocess.run(
        [sys.executable, SUPERVISE, "--state", tmp_path / "state"],
        env=os.environ | {"TMPDIR": "/tmp"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: --state {tmp_path}/state is not usable: File too large\n"
