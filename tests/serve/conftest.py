"""The real service, started as a user starts it, on free ports and a Redis that tests may kill."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from local_redis import LocalRedis
from ports import free_port

from loadtests.targets import configuration, patient, switchboard
from tests.unit.collector import Collector, collecting

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Service:
    """A running service and the addresses of its parts."""

    http: httpx.Client
    metrics: str
    redis: LocalRedis
    process: "subprocess.Popen[str]"
    log: Path
    """The served log, message texts included; a file a second."""
    collector: Collector
    """What receives its traces."""


def command(state: Path, port: int, *options: str) -> list[str]:
    """The service's command line with a state folder and ports of its own."""
    return [
        sys.executable,
        str(ROOT / "scripts" / "supervise.py"),
        *("--state", str(state), "--port", str(port)),
        *("--metrics-port", str(free_port()), *options),
    ]


def wait_until_ready(process: "subprocess.Popen[str]") -> list[str]:
    """The lines that the service printed until it said that it was ready; fails with all of them otherwise."""
    lines: list[str] = []
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if "ready after" in line:
                return lines
    finally:
        timer.cancel()
    pytest.fail("the service did not start:\n" + "\n".join(lines))


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis of the service's own: its ingester would take the events of other tests."""
    with LocalRedis(tmp_path_factory.mktemp("redis"), lambda text: None, free_port()) as server:
        yield server


def write_config(path: Path, deadline_ms: int = 6000, **changes: Mapping[str, Any]) -> Path:
    """The project's configuration, patient, with changes to blocks of the arguments of its first application."""
    config = configuration(partial(patient, deadline_ms=deadline_ms))
    application = switchboard(config)
    for block, change in changes.items():
        application["args"][block] |= change
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def running(arguments: list[str], redis_url: str) -> Iterator["subprocess.Popen[str]"]:
    """A service that is ready; it must end by itself when told to."""
    environment = os.environ | {"REDIS_URL": redis_url}
    with subprocess.Popen(
        arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        wait_until_ready(process)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Where the service's traces go."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="package")
def service(
    redis_server: LocalRedis, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service, for the tests of this folder; it ends with them."""
    port, folder = free_port(), tmp_path_factory.mktemp("state")
    logged, traced = {"text": True, "rotate_s": 1}, {"endpoint": collector.url}
    config = write_config(folder / "config.yaml", served_log=logged, tracing=traced)
    arguments = command(folder, port, "--config", str(config))
    with running(arguments, redis_server.url) as process:
        metrics = f"http://127.0.0.1:{arguments[arguments.index('--metrics-port') + 1]}/metrics"
        kept = httpx.Limits(
            keepalive_expiry=None
        )  # httpx may close an idle connection that another thread has just taken
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=kept) as http:
            yield Service(http, metrics, redis_server, process, folder / "served", collector)
