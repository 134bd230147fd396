"""What a replica's own log holds."""

import logging
from collections.abc import Iterator

import pytest

from deployments.logs import LOGGERS, log_with_serve


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log of Ray Serve receives, at its level WARNING; all loggers are as before afterwards."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    serve, kept = logging.getLogger("ray.serve"), Kept()
    level, parents = serve.level, {name: logging.getLogger(name).parent for name in LOGGERS}
    serve.setLevel(logging.WARNING)
    serve.addHandler(kept)
    yield lines
    serve.removeHandler(kept)
    serve.setLevel(level)
    for name, parent in parents.items():
        logging.getLogger(name).parent = parent


def test_warnings_of_ours_and_of_the_exporter_of_traces_are_in_the_replica_s_log(said: list[str]) -> None:
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter.warning("lost before")
    log_with_serve()
    exporter.warning("the collector is away")
    logging.getLogger("deployments.flow").warning("no features")
    logging.getLogger("deployments.flow").info("a batch left")
    assert said == ["the collector is away", "no features"]
