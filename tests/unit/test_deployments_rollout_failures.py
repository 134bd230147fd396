"""A failure fails the messages that it meets, not those that the other model has answered."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deployments.classify import ClassifyStage
from deployments.flow import Answer
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from deployments.rollout import CandidateConfig
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.bundle_copies import variant
from tests.unit.test_deployments_rollout import TEXT, USERS, both, query, rollout, state


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
