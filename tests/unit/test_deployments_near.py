"""What the ingress does itself, and what it sends to a stage's own deployment."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.near import SHORT, Near, NearConfig, near, size
from deployments.protocol import DependencyError, TextBatch
from tests.unit.gate import Gate

PATIENT = 60_000.0


class Named:
    """A stage that answers with its name and notes what it was given; fails while `failure` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches: list[Any] = []
        self.failure: Exception | None = None

    async def __call__(self, batch: Any) -> str:
        self.batches.append(batch)
        if self.failure is not None:
            raise self.failure
        return self.name


def stage(hop_from: int = 3, patience_ms: float = PATIENT) -> tuple[Near, Named, Named]:
    here, there = Named("here"), Named("there")
    return Near(here, there, NearConfig(hop_from=hop_from, patience_ms=patience_ms)), here, there


@pytest.mark.parametrize(("users", "where"), [(1, "here"), (2, "here"), (3, "there"), (9, "there")])
async def test_small_batches_stay_and_others_travel(users: int, where: str) -> None:
    both, here, there = stage()
    batch = [f"u{i}" for i in range(users)]
    assert await both(batch) == where
    assert here.batches + there.batches == [batch]
    assert both.counts() == {
        ("stage_calls_total", "way", "here"): int(where == "here"),
        ("stage_calls_total", "way", "instead"): 0,
    }


@given(st.lists(st.text(max_size=3 * SHORT), max_size=6))
def test_a_text_counts_once_for_every_short_text_in_it(texts: list[str]) -> None:
    counted = size(TextBatch("v", texts))
    assert counted == sum(1 + len(text) // SHORT for text in texts)
    assert counted >= len(texts) == size(texts)


async def test_one_long_text_travels() -> None:
    both, _, _ = stage()
    assert await both(TextBatch("v", ["x" * (3 * SHORT)])) == "there"
    assert await both(TextBatch("v", ["x" * (SHORT - 1)] * 2)) == "here"


async def test_a_deployment_that_fails_is_stood_in_for_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """With one batch a second: the others do not wait for it."""
    both, here, there = stage()
    there.failure = DependencyError("Preprocessor: ActorDiedError")
    assert [await both(["u"] * 3) for _ in range(50)] == ["here"] * 50
    assert len(here.batches) == 50
    assert len(there.batches) < 5
    there.failure = None
    async with asyncio.timeout(60):
        while await both(["u"] * 3) == "here":
            await asyncio.to_thread(lambda: None)
    assert await both(["u"] * 3) == "there"
    assert both.counts()["stage_calls_total", "way", "instead"] == len(here.batches)
    assert [record.message for record in caplog.records] == [
        "Named: its deployment: DependencyError; done here",
        "Named: its deployment answers again",
    ]


async def test_a_deployment_that_is_silent_is_stood_in_for_and_its_call_ended() -> None:
    silent: Gate[Sequence[str], str] = Gate()
    both = Near(Named("here"), silent, NearConfig(hop_from=1, patience_ms=5))
    assert await both(["u"]) == "here"
    assert (await silent.next()).answer.cancelled()


async def test_a_defect_is_not_hidden() -> None:
    both, here, there = stage()
    there.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await both(["u"] * 3)
    assert here.batches == []


async def test_a_cancelled_caller_is_not_answered_here() -> None:
    silent: Gate[Sequence[str], str] = Gate()
    here = Named("here")
    call = asyncio.ensure_future(Near(here, silent, NearConfig(hop_from=1, patience_ms=PATIENT))(["u"]))
    await silent.next()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert here.batches == []


async def test_a_stage_that_cannot_be_built_here_is_left_as_it_is() -> None:
    there = Named("there")
    assert near(there, None, NearConfig()) is there
    both = near(there, lambda: Named("here"), NearConfig(hop_from=2))
    assert [await both(["u"]), await both(["u"] * 2)] == ["here", "there"]


@pytest.mark.parametrize("wrong", [{"hop_from": -1}, {"patience_ms": 0}, {"hops": 1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NearConfig(**wrong)
