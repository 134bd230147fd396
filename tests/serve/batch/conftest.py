"""One Ray for the tests of this folder, one Redis that they may empty, and a small usage log."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from features.ray_session import session
from features.usage_writer import UsageWriter
from tests.serve.batch.usage import AS_OF, USES
from tests.unit.event_logs import write
from tests.unit.redis_process import RedisProcess


@pytest.fixture(scope="package", autouse=True)
def ray_session() -> Iterator[None]:
    with session(cpus=2):
        yield


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(server: RedisProcess) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with server.client as client:
        client.flushall()
        yield client


@pytest.fixture
def writer(client: Redis, server: RedisProcess) -> UsageWriter:
    return UsageWriter(f"redis://127.0.0.1:{server.port}/0")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for before, uses in USES.items():
        write(tmp_path / "usage", AS_OF - timedelta(before), uses)
    return tmp_path / "usage"
