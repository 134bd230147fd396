"""What a failure costs, who is to blame for it, and when a candidate that failed is tried again."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from deployments.classify import ClassifyStage
from deployments.flow import Answer, Flow
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from deployments.rollout import RETRY_S, Candidate, CandidateConfig, Rollout
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.bundle_copies import variant
from tests.unit.gate import Gate
from tests.unit.test_deployments_rollout import TEXT, USERS, both, failing, query, rollout, state, versions
from tests.unit.virtual_time import run


@pytest.mark.parametrize("candidate_fails", [False, True])
async def test_answers_of_one_model_outlive_a_failure_of_the_other(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path, candidate_fails: bool
) -> None:
    """The present model fails its own messages, or those that it takes over from a candidate that fails."""
    first, *rest = bundle.manifest.labels
    other = Bundle(variant(bundle, tmp_path, labels=(*rest, first)))
    stage, broken, calls = ClassifyStage(lambda version: classifier), asyncio.Event(), list[str]()

    async def classify(batch: TokenBatch) -> LogitBatch:
        calls.append(batch.version)
        answers = other.version if not candidate_fails else bundle.version
        if broken.is_set() and (batch.version != answers or calls.count(answers) > 1):
            raise DependencyError("Classifier: ActorDiedError")
        return await stage(batch)

    stages = replace(both(bundle, other, stage, redis), classify=classify)  # without a cache, which would not raise
    way = rollout(stages, bundle, other)
    way.wanted = CandidateConfig(model="next", share=0.5)
    await way.prepare()
    assert state(way) == ("ready", None)
    calls.clear()
    broken.set()
    answers = await way.answer([query(user, f"{TEXT}, says {user}") for user in USERS])
    given = [answer.response.model_version for answer in answers if isinstance(answer, Answer)]
    assert set(given) == {bundle.version if candidate_fails else other.version}
    assert [str(answer) for answer in answers if isinstance(answer, Exception)] == ["Classifier: ActorDiedError"] * (
        len(USERS) - len(given)
    )


async def test_one_that_had_hardly_any_time_is_not_to_blame(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path
) -> None:
    other = Bundle(variant(bundle, tmp_path, confidence_threshold=1.0))
    gate: Gate[TokenBatch, LogitBatch] = Gate()
    stages = both(bundle, other, ClassifyStage(lambda version: classifier), redis)
    way = rollout(replace(stages, classify=gate), bundle, other)
    way.candidate = Candidate(CandidateConfig(model="next", share=1.0), "ready", other)
    for _ in range(2):
        call = asyncio.ensure_future(way.answer([query("ann")]))
        assert (await gate.next()).argument.version == other.version
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert way.counts()["candidate_failures_total"] == 0


async def test_one_that_is_prepared_anew_does_not_pay_for_what_failed_before(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path
) -> None:
    other, broken = Bundle(variant(bundle, tmp_path, confidence_threshold=1.0)), asyncio.Event()
    stage = failing(classifier, other.version, broken)
    way = rollout(replace(both(bundle, other, stage, redis), classify=stage), bundle, other)
    for _ in range(2):
        for wanted in (None, CandidateConfig(model="next", share=1.0)):
            way.wanted = wanted
            await way.prepare()
        assert await versions(way, ["ann"]) == [other.version]
        broken.set()
        assert await versions(way, ["ann"]) == [bundle.version]
        broken.clear()


async def unused(_: object) -> Any:
    raise AssertionError


class Noting(Rollout):
    """Notes when what was prepared, of which only `good` is ever ready."""

    tried: list[tuple[float, str]]

    async def prepare(self) -> None:
        assert self.wanted is not None
        self.tried.append((asyncio.get_running_loop().time(), self.wanted.model))
        self.candidate = Candidate(self.wanted, "ready" if self.wanted.model == "good" else "failed")


def test_one_that_failed_is_tried_again_after_a_while_and_another_one_soon(bundle: Bundle) -> None:
    async def followed() -> list[tuple[float, str]]:
        way = Noting(Flow(unused, unused, unused, {}), bundle, lambda name: bundle, unused)
        way.tried, way.wanted = [], CandidateConfig(model="bad")
        following = asyncio.create_task(way.follow(every_s=0.5))
        await asyncio.sleep(RETRY_S + 1.2)
        way.wanted = CandidateConfig(model="good")
        await asyncio.sleep(3 * RETRY_S)
        following.cancel()
        return way.tried

    assert run(followed()) == [(0.0, "bad"), (RETRY_S, "bad"), (RETRY_S + 1.5, "good")]
