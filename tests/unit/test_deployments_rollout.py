"""A candidate beside the present model: whom it answers, what happens when it fails, and what a shadow tells."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis

from deployments.breaker import BreakerConfig
from deployments.classify import ClassifyStage, PreprocessStage
from deployments.flow import Answer, Flow
from deployments.ingress import Ingress, IngressConfig
from deployments.protocol import LogitBatch, Query, TokenBatch
from deployments.rollout import CandidateConfig, Rollout
from deployments.served import ServedBatch
from models.bundle import Bundle, BundleError
from models.classifier import TextClassifier
from tests.unit.bundle_copies import variant
from tests.unit.plain_graph import Classify, answered, client_of, flow
from tests.unit.tensors import columns, infer, messages

USERS = [f"u{i}" for i in range(200)]
TEXT = "my card was declined at the shop"


@pytest.fixture(scope="module")
def other(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same network with other names for what it says, so that each of its answers differs."""
    first, *rest = bundle.manifest.labels
    return Bundle(variant(bundle, tmp_path_factory.mktemp("registry"), labels=(*rest, first)))


@pytest.fixture
def stages(bundle: Bundle, other: Bundle, classifier: TextClassifier, redis: Redis) -> Flow:
    return both(bundle, other, ClassifyStage(lambda version: classifier), redis)


def both(bundle: Bundle, other: Bundle, classify: Classify, redis: Redis) -> Flow:
    """Stages that know both models."""
    preprocessors = {each.version: each.preprocessor for each in (bundle, other)}
    return replace(flow(bundle, classify, redis), preprocess=PreprocessStage(preprocessors.__getitem__))


def failing(classifier: TextClassifier, version: str, broken: asyncio.Event, hangs: bool = False) -> Classify:
    """Classifies; raises for one version, or hangs, once it is broken."""
    stage = ClassifyStage(lambda version: classifier)

    async def classify(batch: TokenBatch) -> LogitBatch:
        if broken.is_set() and batch.version == version:
            if hangs:
                await asyncio.Event().wait()
            raise RuntimeError("no memory")
        return await stage(batch)

    return classify


def rollout(stages: Flow, bundle: Bundle, other: Bundle, **options: Any) -> Rollout:
    async def warm(model: Bundle) -> None:
        for answer in await replace(stages, record=None).answer([query("warm-up", "hello")], model):
            assert isinstance(answer, Answer)

    return Rollout(stages, bundle, {"next": other, "same": bundle}.__getitem__, warm, **{"timeout_s": 60.0} | options)


async def warming(stages: Flow, bundle: Bundle, other: Bundle) -> tuple[Rollout, asyncio.Task[None], asyncio.Event]:
    """A rollout whose candidate, for all users, is being warmed until an event is set."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def warm(model: Bundle) -> None:
        begun.set()
        await go.wait()

    way = Rollout(stages, bundle, {"next": other}.__getitem__, warm, timeout_s=60.0)
    way.wanted = CandidateConfig(model="next", share=1.0)
    preparing = asyncio.create_task(way.prepare())
    await begun.wait()
    return way, preparing, go


def query(user: str, text: str = TEXT) -> Query:
    return Query(f"request of {user}", user, text, 3)


def state(of: Rollout) -> tuple[str, str | None] | None:
    return (of.candidate.state, of.candidate.reason) if of.candidate else None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.to_thread(lambda: None)


async def versions(of: Rollout, users: Sequence[str] = USERS) -> list[str]:
    """Who answered each user."""
    answers = await of.answer([query(user) for user in users])
    assert [a.response.request_id for a in answers if isinstance(a, Answer)] == [f"request of {u}" for u in users]
    return [a.response.model_version for a in answers if isinstance(a, Answer)]


async def test_a_share_of_the_users_gets_the_candidate_always_the_same(
    stages: Flow, bundle: Bundle, other: Bundle
) -> None:
    way = rollout(stages, bundle, other)
    theirs: list[set[str]] = []
    for share in (0.0, 0.2, 0.5, 1.0):
        way.wanted = CandidateConfig(model="next", share=share)
        await way.prepare()
        found = await versions(way)
        assert found == await versions(way)
        theirs.append({user for user, version in zip(USERS, found, strict=True) if version == other.version})
        assert abs(len(theirs[-1]) - share * len(USERS)) < 20
        assert set(found) <= {bundle.version, other.version}
    assert all(small <= large for small, large in pairwise(theirs))
    answers = {tags[-1]: n for tags, n in way.counts().items() if tags[0] == "answers_total"}
    assert sum(answers.values()) == 8 * len(USERS)
    assert answers[other.version] == 2 * sum(map(len, theirs))


async def test_without_a_candidate_the_present_model_answers_all(stages: Flow, bundle: Bundle, other: Bundle) -> None:
    way = rollout(stages, bundle, other)
    assert set(await versions(way)) == {bundle.version}
    way.wanted = CandidateConfig(model="next", share=1.0)
    await way.prepare()
    assert set(await versions(way)) == {other.version}
    way.wanted = None
    await way.prepare()
    assert set(await versions(way)) == {bundle.version}


async def test_it_answers_nobody_before_it_is_warm(stages: Flow, bundle: Bundle, other: Bundle) -> None:
    way, preparing, go = await warming(stages, bundle, other)
    assert (state(way), way.levels()) == (("loading", None), {"candidate_ready": 0.0})
    assert set(await versions(way)) == {bundle.version}
    go.set()
    await preparing
    assert (state(way), way.levels()) == (("ready", None), {"candidate_ready": 1.0})
    assert set(await versions(way)) == {other.version}


async def test_another_share_warms_nothing_again(stages: Flow, bundle: Bundle, other: Bundle) -> None:
    warmed: list[str] = []

    async def warm(model: Bundle) -> None:
        warmed.append(model.version)

    way = Rollout(stages, bundle, {"next": other}.__getitem__, warm, timeout_s=60.0)
    for share in (0.1, 0.9):
        way.wanted = CandidateConfig(model="next", share=share)
        await way.prepare()
    assert warmed == [other.version]


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_it_fails_the_present_model_answers(
    bundle: Bundle, other: Bundle, classifier: TextClassifier, redis: Redis, hangs: bool
) -> None:
    broken = asyncio.Event()
    stages = both(bundle, other, failing(classifier, other.version, broken, hangs), redis)
    way = rollout(stages, bundle, other, timeout_s=0.05 if hangs else 60.0)
    way.wanted = CandidateConfig(model="next", share=0.5)
    await way.prepare()
    broken.set()
    assert set(await versions(way)) == {bundle.version}
    failed = way.counts()["candidate_failures_total"]
    assert 80 < failed < 120
    assert set(await versions(way)) == {bundle.version}
    assert way.counts()["candidate_failures_total"] == failed, "it is left alone"


async def test_one_that_hangs_costs_one_batch_at_the_most_however_short_the_deadline(
    bundle: Bundle, other: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    broken = asyncio.Event()
    hanging = failing(classifier, other.version, broken, hangs=True)
    stages = replace(both(bundle, other, hanging, redis), classify=hanging)  # past the cache, which would not wait
    way = rollout(stages, bundle, other, timeout_s=4.0)
    way.wanted = CandidateConfig(model="next", share=0.5)
    await way.prepare()
    broken.set()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.5):
            await versions(way)
    assert way.counts()["candidate_failures_total"] > 80
    assert set(await versions(way)) == {bundle.version}


@pytest.mark.parametrize("instead", [None, CandidateConfig(model="next"), CandidateConfig(model="third", share=1.0)])
async def test_one_that_is_withdrawn_while_it_loads_answers_nobody(
    stages: Flow, bundle: Bundle, other: Bundle, instead: CandidateConfig | None
) -> None:
    way, preparing, go = await warming(stages, bundle, other)
    way.wanted = instead
    go.set()
    await preparing
    assert set(await versions(way)) == {bundle.version}


async def test_one_that_answers_again_is_used_again(
    bundle: Bundle, other: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    broken = asyncio.Event()
    stages = both(bundle, other, failing(classifier, other.version, broken), redis)
    way = rollout(stages, bundle, other, breaker=BreakerConfig(failures=1, pause_s=1e-9))
    way.wanted = CandidateConfig(model="next", share=1.0)
    await way.prepare()
    broken.set()
    assert set(await versions(way)) == {bundle.version}
    broken.clear()
    assert set(await versions(way)) == {other.version}


async def test_one_that_is_missing_is_tried_again(
    stages: Flow, bundle: Bundle, other: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    registry, tried = dict[str, Bundle](), list[str]()

    def load(name: str) -> Bundle:
        tried.append(name)
        if name not in registry:
            raise BundleError(f"no bundle {name}")
        return registry[name]

    async def warm(model: Bundle) -> None:
        return

    way = Rollout(stages, bundle, load, warm, timeout_s=60.0)
    following = asyncio.create_task(way.follow(every_s=0.001, retry_s=0.001))
    way.wanted = CandidateConfig(model="next", share=1.0)
    await until(lambda: len(tried) > 2 and state(way) == ("failed", "no bundle next"))
    assert (set(await versions(way)), caplog.messages) == ({bundle.version}, ["candidate next: no bundle next"])
    registry["next"] = other
    await until(lambda: state(way) == ("ready", None))
    assert set(await versions(way)) == {other.version}
    way.wanted = None
    await until(lambda: way.candidate is None)
    following.cancel()


async def test_the_present_model_is_no_candidate(stages: Flow, bundle: Bundle, other: Bundle) -> None:
    way = rollout(stages, bundle, other)
    way.wanted = CandidateConfig(model="same", share=1.0)
    await way.prepare()
    assert state(way) == ("failed", f"same is {bundle.version}, which is the present model")


async def test_a_shadow_is_compared_and_nobody_sees_it(stages: Flow, bundle: Bundle, other: Bundle) -> None:
    recorded: list[ServedBatch] = []
    way = rollout(replace(stages, record=recorded.append), bundle, other)
    way.wanted = CandidateConfig(model="next", shadow=True)
    await way.prepare()
    assert set(await versions(way, USERS[:3])) == {bundle.version}
    await until(lambda: way.counts()["shadow_compared_total"] == 3)
    assert way.counts()["shadow_differed_total"] == 3
    assert way.stages.counts()["stage_seconds_count", "stage", "flow"] == 1
    assert [batch.bundle.version for batch in recorded] == [bundle.version]


async def test_a_shadow_that_does_not_keep_up_is_left_out(
    bundle: Bundle, other: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stage, go, held = ClassifyStage(lambda version: classifier), asyncio.Event(), asyncio.Event()

    async def classify(batch: TokenBatch) -> LogitBatch:
        if held.is_set() and batch.version == other.version:
            await go.wait()
        return await stage(batch)

    way = rollout(both(bundle, other, classify, redis), bundle, other)
    way.wanted = CandidateConfig(model="next", shadow=True)
    await way.prepare()
    held.set()
    for texts in ("one", "two", "three"):
        await way.answer([query("ann", texts)])
    assert way.counts()["shadow_left_out_total"] == 2
    go.set()
    await until(lambda: way.counts()["shadow_compared_total"] == 1)


async def test_over_http(stages: Flow, bundle: Bundle, other: Bundle, redis: Redis) -> None:
    ingress = Ingress(stages, bundle, redis, load={"next": other}.__getitem__)
    at = client_of(ingress)
    ingress.configure(IngressConfig(deadline_ms=600_000, candidate=CandidateConfig(model="next", share=1.0)))
    ingress.rollout.timeout_s = 60.0
    await ingress.rollout.prepare()
    assert answered(await at.predict(user_id="ann", text=TEXT)).model_version == other.version
    present, candidate = (await at.http.get("/v1/models")).json()["models"]
    assert (present["role"], present["version"]) == ("present", bundle.version)
    told = {"name": "next", "role": "candidate", "state": "ready", "share": 1.0, "shadow": False}
    assert {key: candidate[key] for key in told} == told
    assert (candidate["version"], candidate["labels"]) == (other.version, list(other.manifest.labels))
    inferred = await infer(at, messages(TEXT))
    assert inferred.json()["model_version"] == bundle.version
    assert columns(inferred)["product"] != [answered(await at.predict(user_id="ann", text=TEXT)).product], "its own"
    ingress.configure(IngressConfig())
    assert ingress.rollout.wanted is None
