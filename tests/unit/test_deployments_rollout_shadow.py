"""What a shadow is compared by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from deployments.classify import ClassifyStage
from deployments.rollout import CandidateConfig
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.bundle_copies import variant
from tests.unit.test_deployments_rollout import both, query, rollout, until, versions


@pytest.mark.parametrize(
    ("changes", "one_desk", "differs"),
    [
        ({"confidence_threshold": 1.0}, False, True),
        ({"temperature": 1.5, "confidence_threshold": 0.0, "out_of_scope_threshold": 1.0}, False, False),
        ({"labels": "turned"}, False, True),
        ({"labels": "turned"}, True, False),
    ],
    ids=["routes it no more", "is less sure", "names another product", "names another product of the same desk"],
)
async def test_it_differs_where_another_desk_would_get_the_customer(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path_factory: pytest.TempPathFactory,
    changes: dict[str, Any], one_desk: bool, differs: bool,
) -> None:  # fmt: skip
    first, *rest = labels = bundle.manifest.labels
    if "labels" in changes:
        changes = {"labels": (*rest, first)}
    other = Bundle(variant(bundle, tmp_path_factory.mktemp("registry"), **changes))
    stages = both(bundle, other, ClassifyStage(lambda version: classifier), redis)
    way = rollout(replace(stages, desks=dict.fromkeys(labels, "all") if one_desk else {}), bundle, other)
    way.wanted = CandidateConfig(model="next", shadow=True)
    await way.prepare()
    await way.answer([query("ann")])
    await until(lambda: way.counts()["shadow_compared_total"] == 1)
    assert way.counts()["shadow_differed_total"] == int(differs)


async def test_it_is_compared_with_the_present_model_alone(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path
) -> None:
    """Not with itself, where it answered a share of the users."""
    other = Bundle(variant(bundle, tmp_path, confidence_threshold=1.0))
    way = rollout(both(bundle, other, ClassifyStage(lambda version: classifier), redis), bundle, other)
    way.wanted = CandidateConfig(model="next", share=0.5, shadow=True)
    await way.prepare()
    by_present = (await versions(way)).count(bundle.version)
    await until(lambda: way.counts()["shadow_compared_total"] > 0)
    assert 80 < by_present == way.counts()["shadow_compared_total"]
