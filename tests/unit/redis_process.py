"""Redis servers of a test's own: started with the options it wants, killed and started again, joined to a cluster."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from local_redis import server_binary
from ports import free_port, is_free
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

SLOTS = 16_384
_BUS = 10_000
"""How far above a node's port its cluster bus listens."""


class RedisProcess:
    """One server on 127.0.0.1 that has lost nothing when it is started again."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, password: str | None = None) -> None:
        self.port = port or free_port()
        self._folder, self._options, self._password = folder, options, password
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "RedisProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def client(self) -> "Redis":
        """A plain client of this server alone."""
        return Redis(
            port=self.port,
            password=self._password,
            decode_responses=True,
            socket_timeout=30,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self) -> None:
        """Start, or start again with what was written before; returns when it answers."""
        secret = ["--requirepass", self._password, "--masterauth", self._password] if self._password else []
        self._process = subprocess.Popen(
            [
                server_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder),
                "--save", "", "--appendonly", "yes", "--appendfsync", "no", *secret, *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _wait(lambda: self.answers() or self._process.poll() is not None, "the server does not answer")
        assert self._process.poll() is None, "the server did not start"

    def kill(self) -> None:
        """End it by SIGKILL: what it has acknowledged is with the kernel, and so in its file."""
        self._process.kill()
        self._process.wait(timeout=60)

    def hang(self) -> None:
        """Let it answer nothing and refuse nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


def cluster_port() -> int:
    """A free port whose cluster bus is free as well, and no port that systems give to connections."""
    while True:
        port = free_port()
        if port + _BUS < 32_768 and is_free(port + _BUS):
            return port


def join(nodes: list[RedisProcess]) -> None:
    """Make the nodes one cluster and share the slots between them; returns when each of them says that it works."""
    for i, node in enumerate(nodes):
        with node.client as client:
            client.execute_command(
                "CLUSTER", "ADDSLOTS", *range(i * SLOTS // len(nodes), (i + 1) * SLOTS // len(nodes))
            )
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            for other in nodes[:i]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
    _wait(lambda: all(_whole(node, len(nodes)) for node in nodes), "the nodes did not become a cluster")


def replicate(nodes: list[RedisProcess], primary: RedisProcess, replica: RedisProcess) -> None:
    """Add a replica of one node to the cluster; returns when all know it and it has all that its primary has."""
    with primary.client as source, replica.client as client:
        for node in nodes:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        _wait(lambda: all(_whole(node, len(nodes) + 1) for node in [*nodes, replica]), "the replica was not accepted")
        client.execute_command("CLUSTER", "REPLICATE", source.execute_command("CLUSTER", "MYID"))
        _wait(lambda: source.wait(1, 100) == 1, "the replica did not follow its primary")


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)


def _whole(node: RedisProcess, nodes: int) -> bool:
    with node.client as client:
        info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes)
