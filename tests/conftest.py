"""Real servers for the tests: Redis on a free port, flushed before every test that uses it.

Hypothesis draws the same examples in every run, and a busy machine fails nothing. Of several processes (`-n`) one runs
nearly all tests of services.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from local_redis import LocalRedis
from ports import free_port
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from features.store import connect

settings.register_profile("switchboard", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("switchboard")
SERVICES, ON_ITS_OWN = "tests/serve/", "tests/serve/test_compare.py"


class _OneWithServices(LoadScopeScheduling):  # type: ignore[misc]
    """A file at a time to whoever is free, but nearly all that start services to one: two would starve each other."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SERVICES if file.startswith(SERVICES) and file != ON_ITS_OWN else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _OneWithServices(config, log)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """A Redis server of this test session's own."""
    with LocalRedis(tmp_path_factory.mktemp("redis"), lambda text: None, free_port()) as server:
        with BlockingRedis(port=server.port, socket_timeout=60) as client:
            client.config_set("appendonly", "no")  # nothing reads the file, and a slow disk stalls whoever writes it
        yield server


@pytest.fixture
async def redis(redis_server: LocalRedis) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = connect(redis_server.url, 60.0)
    await client.flushall()
    yield client
    await client.aclose()
