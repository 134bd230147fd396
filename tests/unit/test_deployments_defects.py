"""A defect leaves its place in the logs, and never the words that a request brought."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments.cache import PredictionCache
from deployments.defects import log_defect
from deployments.metrics import Exporter
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from deployments.stages import Stage
from tests.unit.tokens import tokens

WORDS = "my card 4111 was declined"


def stumbling(kind: type[Exception]) -> Callable[[Any], Awaitable[Any]]:
    async def stumble(batch: Any) -> Any:
        raise kind(WORDS)

    return stumble


async def test_a_stage_tells_where_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(lambda: stumbling(KeyError), linked=False)
    with pytest.raises(KeyError):
        await stage(None)
    assert "KeyError" in caplog.text
    assert f'{__file__}", line ' in caplog.text
    assert "in stumble" in caplog.text
    assert WORDS not in caplog.text


async def test_a_dependency_that_fails_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DependencyError):
        await Stage(lambda: stumbling(DependencyError), linked=False)(None)
    with pytest.raises(TimeoutError):
        await Stage(lambda: stumbling(TimeoutError), linked=False)(None)
    assert not caplog.records


async def test_what_every_batch_meets_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(lambda: stumbling(ZeroDivisionError), linked=False)
    await asyncio.gather(*(stage(None) for _ in range(5)), return_exceptions=True)
    assert len(caplog.records) == 1


async def test_the_cache_tells_of_a_classifier_that_breaks_its_word(caplog: pytest.LogCaptureFixture) -> None:
    async def forgetful(batch: TokenBatch) -> LogitBatch:
        raise LookupError(WORDS)

    answer = await PredictionCache(forgetful)(tokens("v", [1], [2]))
    assert answer.failure == "classifier: LookupError"
    assert "in forgetful" in caplog.text
    assert WORDS not in caplog.text


async def test_a_count_that_fails_is_told_and_metrics_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Part:
        read, often = 0, asyncio.Event()

        def counts(self) -> dict[str, float]:
            self.read += 1
            if self.read > 2:
                self.often.set()
            raise LookupError(WORDS)

    part = Part()
    Exporter(part).start(interval_s=0)
    async with asyncio.timeout(60):
        await part.often.wait()
    assert "metrics of Part: unexpected LookupError" in caplog.text
    assert WORDS not in caplog.text


def test_a_defect_elsewhere_is_another_one(caplog: pytest.LogCaptureFixture) -> None:
    for where in ("one place", "another", "one place"):
        log_defect(where, OSError(WORDS))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["one place", "another"]
