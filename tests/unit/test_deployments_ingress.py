import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis

from deployments.cache import Learned
from deployments.cache_bypass import CacheBypass
from deployments.ingress import Ingress
from deployments.protocol import DependencyError, LogitBatch, ScreenEventAccepted, TextBatch, TokenBatch
from features.schema import FEEDBACK_STREAM, SCREEN_STREAM, ScreenEvent
from features.store import FeatureStore
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import PATIENT, STAGES, Service, answered, classify_stage, client_of, flow, refused, service

TEXT = "my card was declined at the shop"


async def stream(redis: Redis) -> list[tuple[str, dict[str, str]]]:
    """The entries of the stream of screen events, with their ids."""
    return cast(list[tuple[str, dict[str, str]]], await redis.xrange(SCREEN_STREAM))


async def test_an_answer_says_what_it_knows(at: Service, bundle: Bundle, redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.write_screens([ScreenEvent("e1", "ann", "card_limit", datetime.now(UTC))])
    await store.write_usage("r1", {"ann": {bundle.manifest.labels[0]: 7}})
    await store.publish_run("r1")
    first = answered(await at.predict(user_id="ann", text=TEXT, request_id="mine", top_k=2))
    assert first.request_id == "mine"
    assert len(first.top) == 2
    assert first.product == first.top[0].product
    assert first.features.recent_screens == ["card_limit"]
    assert first.features.product_usage_60d == {bundle.manifest.labels[0]: 7}
    assert first.model_version == bundle.version
    assert (first.cached, first.degraded) == (False, [])
    second = answered(await at.predict(user_id="ann", text=f"  {TEXT.upper()}  ", request_id="mine", top_k=2))
    assert second == msgspec.structs.replace(first, cached=True), "the cache's notion of equal is the model's"


async def test_request_ids_are_made_where_there_is_none(at: Service) -> None:
    ids = {answered(await at.predict(user_id="ann", text=TEXT)).request_id for _ in range(3)}
    assert len(ids) == 3
    assert all(ids)


async def test_top_has_the_wanted_length_and_three_by_default(at: Service, bundle: Bundle) -> None:
    assert len(answered(await at.predict(user_id="ann", text=TEXT)).top) == 3
    everything = answered(await at.predict(user_id="ann", text=TEXT, top_k=100)).top
    assert {candidate.product for candidate in everything} == set(bundle.manifest.labels)
    confidence = [candidate.confidence for candidate in everything]
    assert confidence == sorted(confidence, reverse=True)


async def test_server_timing_has_every_stage(at: Service) -> None:
    response = await at.predict(user_id="ann", text=TEXT)
    figures = dict(figure.split(";dur=") for figure in response.headers["server-timing"].split(", "))
    assert set(figures) == STAGES
    assert all(float(figure) >= 0 for figure in figures.values())
    counted = at.ingress.rollout.stages.counts()
    assert {name[-1]: n for name, n in counted.items() if name[0] == "stage_seconds_count"} == dict.fromkeys(
        STAGES - {"total"}, 1
    )


async def test_answers_are_counted_by_the_desk_that_they_name(at: Service) -> None:
    texts = [TEXT, TEXT, "how do I reset my password", "what is the capital of France", "..!"]
    desks = [answered(await at.predict(user_id="ann", text=text)).action.desk for text in texts]
    counted = {name[-1]: n for name, n in at.ingress.counts().items() if name[0] == "routed_total"}
    assert counted == Counter(desks)
    assert counted["general"] == at.ingress.counts()["abstained_total"] > 0


async def test_without_redis_the_answer_is_degraded(
    bundle: Bundle, classifier: TextClassifier, dead_redis: Redis
) -> None:
    at = service(bundle, classify_stage(bundle, classifier), dead_redis)
    answer = answered(await at.predict(user_id="ann", text=TEXT))
    assert answer.degraded == ["recent_screens", "product_usage_60d"]
    assert (answer.features.recent_screens, answer.features.product_usage_60d) == ([], {})
    event = {"user_id": "ann", "screen": "home", "event_id": "e7"}
    error = refused(await at.http.post("/v1/events/screens", json=event), 503)
    assert error.code == "unavailable"
    assert "send it again with event_id 'e7'" in error.message


async def test_concurrent_requests_get_their_own_answers(at: Service) -> None:
    tasks = [
        at.begin(user_id=f"user-{i}", text=f"text {i % 5}", request_id=f"r{i}", top_k=1 + i % 4) for i in range(40)
    ]
    for i, response in enumerate(await asyncio.gather(*tasks)):
        answer = answered(response)
        assert (answer.request_id, len(answer.top)) == (f"r{i}", 1 + i % 4)
    assert at.ingress.batcher.batches < 40, "they travelled together"


async def test_a_burst_of_screens_and_feedback_is_stored(at: Service, redis: Redis) -> None:
    """Of more at once than redis-py opens connections for."""
    event, feedback = {"user_id": "ann", "screen": "home"}, {"request_id": "r", "product": "loans"}
    posts = [at.http.post("/v1/events/screens", json=event) for _ in range(300)]
    posts += [at.http.post("/v1/feedback", json=feedback) for _ in range(300)]
    assert {response.status_code for response in await asyncio.gather(*posts)} == {202}
    assert await redis.xlen(SCREEN_STREAM) == await redis.xlen(FEEDBACK_STREAM) == 300


async def test_a_million_entries_of_feedback_are_kept_and_older_ones_go(at: Service, redis: Redis) -> None:
    fill = "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'request_id', i) end"
    for _ in range(91):  # one command of them all would take longer than a client waits
        await redis.eval(fill, 1, FEEDBACK_STREAM, "11000")
    response = await at.http.post("/v1/feedback", json={"request_id": "newest", "product": "loans"})
    assert response.status_code == 202
    assert 1_000_000 <= await redis.xlen(FEEDBACK_STREAM) < 1_000_200
    assert (await redis.xinfo_stream(FEEDBACK_STREAM))["last-entry"][1]["request_id"] == "newest"


@pytest.mark.parametrize("field", ["user_id", "screen", "event_id"])
async def test_an_event_that_the_ingester_would_refuse_is_not_accepted(at: Service, redis: Redis, field: str) -> None:
    event = {"user_id": "ann", "screen": "home", "event_id": "e1"} | {field: "caf\ufffd"}
    error = refused(await at.http.post("/v1/events/screens", json=event), 422)
    assert (error.code, error.field) == ("invalid_field", field)
    assert await redis.exists(SCREEN_STREAM) == 0


async def test_a_published_screen_is_on_the_stream(at: Service, redis: Redis) -> None:
    event = {"user_id": "ann", "screen": "card_limit", "at": "2026-01-02T03:04:05.5+02:00", "event_id": "e1"}
    response = await at.http.post("/v1/events/screens", json=event)
    assert response.status_code == 202
    accepted = msgspec.json.decode(response.content, type=ScreenEventAccepted)
    assert accepted.event_id == "e1"
    [(stream_id, fields)] = await stream(redis)
    assert stream_id == accepted.stream_id
    assert fields == {**event, "at": "2026-01-02T01:04:05.500000Z"}


async def test_a_screen_without_moment_is_seen_now_under_a_new_id(at: Service, redis: Redis) -> None:
    before = datetime.now(UTC)
    for _ in range(2):
        response = await at.http.post("/v1/events/screens", json={"user_id": "ann", "screen": "home"})
        assert response.status_code == 202
    entries = [fields for _, fields in await stream(redis)]
    assert len({fields["event_id"] for fields in entries}) == 2
    assert all(before <= datetime.fromisoformat(fields["at"]) <= datetime.now(UTC) for fields in entries)


async def test_readiness_comes_with_the_warm_up(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> None:
    stage, seen = classify_stage(bundle, classifier), []

    async def classify(batch: TokenBatch) -> LogitBatch:
        seen.append(batch)
        if len(seen) == 1:
            raise DependencyError("Classifier: no replica yet")
        return await stage(batch)

    at = service(bundle, classify, redis)
    assert (await at.http.get("/healthz/live")).json() == {"status": "live"}
    error = refused(await at.http.get("/healthz/ready"), 503)
    assert error.code == "not_ready"
    with pytest.raises(DependencyError, match="no replica yet"):
        await at.ingress.warm_up()
    refused(await at.http.get("/healthz/ready"), 503)
    await at.ingress.warm_up()
    response = await at.http.get("/healthz/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "model_version": bundle.version})


async def test_the_warm_up_is_tried_until_every_stage_answers(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stage, tries = classify_stage(bundle, classifier), iter(range(100))

    async def classify(batch: TokenBatch) -> LogitBatch:
        if next(tries) < 3:
            raise DependencyError("Classifier: no replica yet")
        answer = await stage(batch)
        assert np.isfinite(answer.logits).all()
        return answer

    at = service(bundle, classify, redis)
    await at.ingress.warm_up.until_ready(pause_s=0)
    assert (await at.http.get("/healthz/ready")).status_code == 200
    assert next(tries) == 4


async def test_readiness_is_taken_back_while_a_stage_does_not_answer(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stage, gone, back = classify_stage(bundle, classifier), asyncio.Event(), asyncio.Event()

    async def classify(batch: TokenBatch) -> LogitBatch:
        if gone.is_set() and not back.is_set():
            raise DependencyError("Classifier: its replica has died")
        return await stage(batch)

    at = service(bundle, classify, redis)
    await at.ingress.warm_up()
    known = answered(await at.predict(user_id="ann", text=TEXT))
    gone.set()
    refused(await at.predict(user_id="ann", text=f"{TEXT} again"), 503)
    assert refused(await at.http.get("/healthz/ready"), 503).code == "not_ready"
    assert at.ingress.warm_up.levels() == {"ready": 0.0}
    again = answered(await at.predict(user_id="ann", text=TEXT))
    assert (again.cached, again.product) == (True, known.product), "what is known is answered meanwhile"
    assert at.ingress.warm_up.begun, "settings are still refused without an end of the replica"
    back.set()
    await at.ingress.warm_up.until_ready(pause_s=0)
    assert (await at.http.get("/healthz/ready")).status_code == 200


async def test_it_becomes_ready_again_by_itself(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> None:
    stage, gone, asked = classify_stage(bundle, classifier), False, 0

    async def classify(batch: TokenBatch) -> LogitBatch:
        nonlocal asked
        asked += 1
        if gone and asked == 3:  # what the message needs
            raise DependencyError("Classifier: its replica has died")
        return await stage(batch)

    at = service(bundle, classify, redis)
    await at.ingress.warm_up()
    gone, asked = True, 2
    refused(await at.predict(user_id="ann", text=TEXT), 503)
    await asyncio.gather(*asyncio.all_tasks() - {cast(asyncio.Task[None], asyncio.current_task())})
    assert (at.ingress.warm_up.ready, asked) == (True, 4)


async def test_it_is_ready_where_messages_are_answered_though_a_stage_that_they_go_past_is_gone(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    stage, gone = classify_stage(bundle, classifier), {"cache", "classifier"}

    async def straight(batch: TokenBatch) -> LogitBatch:
        if "classifier" in gone:
            raise DependencyError("Classifier: its replica has died")
        return await stage(batch)

    async def cache(batch: TokenBatch | Learned) -> LogitBatch:
        if "cache" in gone or isinstance(batch, Learned):
            raise DependencyError("PredictionCache: its replica hangs")
        return await stage(batch)

    near = flow(bundle, stage, redis)
    apart = replace(near, classify=cache)
    ingress = Ingress(replace(near, classify=CacheBypass(cache, straight)), bundle, redis, PATIENT, warm=apart)
    at = client_of(ingress)
    with pytest.raises(DependencyError):
        await ingress.warm_up()
    gone.clear()
    await ingress.warm_up()
    gone |= {"cache", "classifier"}
    refused(await at.predict(user_id="ann", text=TEXT), 503)
    gone.remove("classifier")
    await ingress.warm_up.until_ready(pause_s=0)
    assert (await at.http.get("/healthz/ready")).status_code == 200


async def test_stages_that_stand_in_for_others_do_not_make_it_ready(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    """Deployments whose work the ingress could do must have answered, too."""
    gone = True

    async def elsewhere(batch: TextBatch) -> TokenBatch:
        if gone:
            raise DependencyError("Preprocessor: no replica yet")
        return await near.preprocess(batch)

    near = flow(bundle, classify_stage(bundle, classifier), redis)
    ingress = Ingress(near, bundle, redis, warm=replace(near, preprocess=elsewhere))
    with pytest.raises(DependencyError, match="no replica yet"):
        await ingress.warm_up()
    assert not ingress.warm_up.ready
    gone = False
    await ingress.warm_up()
    assert ingress.warm_up.ready


async def test_the_models_are_listed(at: Service, bundle: Bundle) -> None:
    [model] = (await at.http.get("/v1/models")).json()["models"]
    assert model["name"] == "production"
    assert model["version"] == bundle.version
    assert model["labels"] == list(bundle.manifest.labels)
    assert model["fingerprint"] == bundle.manifest.fingerprint
