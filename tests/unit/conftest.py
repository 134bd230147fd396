"""The model that serves by default, loaded once; a service of plain stages; a Redis that is not there; a usage log."""

import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType

import pytest
from redis.asyncio import Redis

from features.partials import Partials
from features.store import connect
from models.bundle import Bundle
from models.classifier import TextClassifier
from models.registry import Registry
from tests.unit.event_logs import DAY, USES, write
from tests.unit.plain_graph import Service, classify_stage, service

LIMIT_S = 300


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """A test that waits for what never comes fails, instead of waiting for ever."""

    def ring(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test did not end within {LIMIT_S} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S, LIMIT_S)  # again, for each example that Hypothesis tries
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle `production` of this repository."""
    return Registry().load("production")


@pytest.fixture(scope="session")
def classifier(bundle: Bundle) -> TextClassifier:
    """Its text classifier, warm."""
    return bundle.classifier()


@pytest.fixture
def at(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> Service:
    """A service with that model and an empty Redis."""
    return service(bundle, classify_stage(bundle, classifier), redis)


@pytest.fixture
async def dead_redis() -> AsyncIterator[Redis]:
    """A client of a port that is taken and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0", 60.0)
        yield client
        await client.aclose()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A usage log of one day."""
    write(tmp_path / "usage", DAY, USES)
    return tmp_path / "usage"


@pytest.fixture
def partials(tmp_path: Path) -> Partials:
    """Those of that log, of which none is made yet."""
    return Partials(tmp_path / "partials")
