"""A batch of the service's own, after an answer failed, belongs to no customer."""

import asyncio
from contextvars import ContextVar
from dataclasses import replace

from redis.asyncio import Redis

from deployments.protocol import LogitBatch, TokenBatch
from deployments.served import ServedBatch
from deployments.warm_up import WarmUp
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import classify_stage, flow

customer: ContextVar[str] = ContextVar("customer", default="nobody")


async def test_what_is_sent_after_a_doubt_does_not_end_with_the_request_that_failed(
    bundle: Bundle, classifier: TextClassifier, redis: Redis
) -> None:
    """Ray cancels what runs in the context of a request whose client has gone."""
    stage, asked = classify_stage(bundle, classifier), asyncio.Queue[str]()

    async def classify(batch: TokenBatch) -> LogitBatch:
        asked.put_nowait(customer.get())
        return await stage(batch)

    way = flow(bundle, stage, redis)
    recorded: list[ServedBatch] = []
    warm_up = WarmUp([replace(way, classify=classify, record=recorded.append)], bundle)
    warm_up.ready = True
    customer.set("ann")
    for _ in range(2):
        warm_up.doubt()
    assert await asked.get() == "nobody"
    async with asyncio.timeout(60):
        while not warm_up.ready:
            await asyncio.to_thread(lambda: None)
    assert asked.empty(), "one batch is enough"
    assert not recorded
