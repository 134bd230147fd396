"""What a candidate may be told, and what follows from the ingress' own settings."""

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from deployments.classify import ClassifyStage
from deployments.ingress import Ingress, IngressConfig
from deployments.protocol import Query
from deployments.rollout import _chosen
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import flow


async def test_a_candidate_may_take_half_of_the_deadline(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stages = flow(bundle, ClassifyStage({bundle.version: classifier}.__getitem__), redis)
    ingress = Ingress(stages, bundle, redis, IngressConfig(deadline_ms=500))
    assert ingress.rollout.timeout_s == 0.25
    ingress.configure(IngressConfig(deadline_ms=60_000))
    assert ingress.rollout.timeout_s == 1.0


def test_settings_are_checked() -> None:
    for wrong in ({"model": "next", "share": 1.1}, {"model": ""}, {"share": 0.1}, {"model": "next", "percent": 5}):
        with pytest.raises(ValidationError, match="candidate"):
            IngressConfig.model_validate({"candidate": wrong})


def test_each_candidate_has_its_own_share_of_the_users() -> None:
    """The same customers are not those of every trial."""
    queries = [Query("r", f"u{i}", "hello", 3) for i in range(200)]
    one, two = ({i for i, query in enumerate(queries) if _chosen(query, version, 0.2)} for version in ("one", "two"))
    assert one - two
    assert two - one
