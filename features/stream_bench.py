"""Benchmarks of the stream and the store on a real Redis: throughput, freshness and reads.

Each works on keys with a unique name, and deletes what it wrote. The ingester is a separate process; publisher and
reader share this one. Each returns a JSON object.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import numpy as np
import psutil
from redis.asyncio import Redis
from tqdm import tqdm

from features.bench_setup import answer, count_sends, machine, process, scratch
from features.schema import ScreenEvent
from features.store import FeatureStore, connect
from features.stream import IngesterConfig, ScreenIngester, publish_all
from features.usage import RUN_KEY, TTL_S

WARM_UP_EVENTS = 5_000
WARM_UP_ROUNDS = 50
WARM_UP_S = 1.0
WAIT_TIMEOUT_S = 120.0
"""Time-out of steps that should take a moment."""
_DELETE_OWN = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


async def throughput(
    redis_url: str, events: int = 100_000, users: int = 10_000, batch: int = 500, rounds: int = 3
) -> dict[str, Any]:
    """Events a second that one ingester stores from a filled stream, by wall-clock and by processor time."""
    results: list[dict[str, int]] = []
    async with scratch(redis_url) as (redis, name):
        config = IngesterConfig(stream=f"{name}:screens", batch=batch)
        for _ in tqdm(range(rounds), desc="throughput", unit="round", disable=None):
            waiting = _random_events(name, WARM_UP_EVENTS + events, users)
            for first in range(0, len(waiting), 1_000):
                await publish_all(redis, waiting[first : first + 1_000], config.stream)
            with process(_ingest_all, redis_url, config, len(waiting)) as (_, pipe):
                results.append(await answer(pipe, WAIT_TIMEOUT_S + len(waiting) / 500))
        return {
            "benchmark": "throughput",
            "events": events,
            "users": users,
            "batch": batch,
            **{key: round(median(result[key] for result in results)) for key in results[0]},
            "rounds": results,
            "machine": await machine(redis),
        }


async def freshness(redis_url: str, rate: int = 1_000, seconds: float = 20.0, users: int = 10_000) -> dict[str, Any]:
    """Milliseconds from before the publishing of an event to the first read with it; one ingester, `rate` events/s.

    About a hundred events a second are watched: the first of new users, who are read until they have a screen.

    Raises:
        TimeoutError: an event was published and not seen.
    """
    async with scratch(redis_url) as (redis, name):
        config = IngesterConfig(stream=f"{name}:screens")
        with process(_ingest_for_ever, redis_url, config) as (pid, pipe):
            await answer(pipe, WAIT_TIMEOUT_S)
            watch, ingester = _Watch(FeatureStore(redis)), psutil.Process(pid)
            watching = asyncio.create_task(watch.run())
            began, busy = time.perf_counter(), sum(ingester.cpu_times()[:2])
            published = await _publish_steadily(redis, config.stream, name, rate, seconds, users, watch)
            took, busy = time.perf_counter() - began, sum(ingester.cpu_times()[:2]) - busy
            watch.finish()
            await watching
        return {
            "benchmark": "freshness",
            "rate": rate,
            "seconds": seconds,
            "events_per_second": round(published / took),
            "watched": len(watch.seen_after_ms),
            **_percentiles(watch.seen_after_ms),
            "ingester_cpu_share": round(busy / took, 3),
            "machine": await machine(redis),
        }


async def reads(redis_url: str, users: int = 32, rounds: int = 2_000) -> dict[str, Any]:
    """Milliseconds and round trips of one read of `users` users with screens and usage.

    Round trips are not counted in a Redis Cluster.
    """
    async with scratch(redis_url) as (redis, name):
        sends = count_sends(redis)
        store, everybody = FeatureStore(redis), [f"{name}-u{number}" for number in range(1_000)]
        await store.write_screens(_random_events(name, 5 * len(everybody), len(everybody)))
        rng, took = random.Random(0), []
        async with usage_for(redis, name, everybody):
            for number in tqdm(range(-WARM_UP_ROUNDS, rounds), desc="reads", unit="read", disable=None):
                asked = rng.sample(everybody, users) if users <= len(everybody) else rng.choices(everybody, k=users)
                before, began = sends(), time.perf_counter()
                await store.read(asked)
                if number >= 0:
                    took.append(((time.perf_counter() - began) * 1e3, sends() - before))
        return {
            "benchmark": "reads",
            "users": users,
            "rounds": rounds,
            **_percentiles([spent for spent, _ in took]),
            "round_trips": max(sent for _, sent in took) or None,
            "machine": await machine(redis),
        }


@asynccontextmanager
async def usage_for(redis: Redis, name: str, users: list[str]) -> AsyncGenerator[None]:
    """Usage of these users in the published run (see `visible_run`); deleted in the end."""
    store = FeatureStore(redis)
    async with visible_run(redis, name) as run:
        try:
            await store.write_usage(run, {user: {"loans": 3, "credit_card": 20} for user in users})
            yield
        finally:
            await store.write_usage(run, {user: {} for user in users})


@asynccontextmanager
async def visible_run(redis: Redis, name: str) -> AsyncGenerator[str]:
    """The published usage run; if there is none, `name` is published, and deleted in the end if still there."""
    try:
        await redis.set(RUN_KEY, name, nx=True, ex=TTL_S)
        yield str(await redis.get(RUN_KEY) or name)
    finally:
        await redis.eval(_DELETE_OWN, 1, RUN_KEY, name)


def _random_events(name: str, count: int, users: int) -> list[ScreenEvent]:
    """Events with random users and random times of the last ten minutes."""
    rng, now = random.Random(0), datetime.now(UTC)
    return [
        ScreenEvent(
            f"{rng.getrandbits(64):016x}",
            f"{name}-u{rng.randrange(users)}",
            f"screen_{rng.randrange(50)}",
            now - timedelta(seconds=600 * rng.random()),
        )
        for _ in range(count)
    ]


async def _ingest_all(pipe: Any, redis_url: str, config: IngesterConfig, events: int) -> None:
    redis = connect(redis_url, 10.0)
    ingester = ScreenIngester(redis, FeatureStore(redis), config)
    while ingester.stored < WARM_UP_EVENTS:
        await ingester.step()
    warm, wall, cpu = ingester.stored, time.perf_counter(), time.process_time()
    while ingester.stored < events:
        await ingester.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    measured = ingester.stored - warm
    pipe.send({"events_per_second": round(measured / wall), "events_per_cpu_second": round(measured / cpu)})
    await redis.aclose()


async def _ingest_for_ever(pipe: Any, redis_url: str, config: IngesterConfig) -> None:
    redis = connect(redis_url, 10.0)
    ingester = ScreenIngester(redis, FeatureStore(redis), config)
    await ingester.housekeep()
    pipe.send("ready")
    await ingester.run()


class _Watch:
    """Reads users until they have a screen."""

    def __init__(self, store: FeatureStore) -> None:
        self.seen_after_ms: list[float] = []
        self._store = store
        self._published: dict[str, float] = {}
        self._finish_by: float | None = None

    def expect(self, user: str) -> None:
        """Watch a user, whose first event is published now."""
        self._published[user] = time.perf_counter()

    def finish(self) -> None:
        """End `run` when all users that are expected by now have been seen."""
        self._finish_by = time.perf_counter() + WAIT_TIMEOUT_S

    async def run(self) -> None:
        while self._published or self._finish_by is None:
            if self._finish_by is not None and time.perf_counter() > self._finish_by:
                raise TimeoutError(
                    f"{len(self._published)} events were not visible {WAIT_TIMEOUT_S:.0f} s after the last"
                )
            oldest = list(self._published)[:32]
            features = await self._store.read(oldest) if oldest else []
            now = time.perf_counter()
            for user, seen in zip(oldest, features, strict=True):
                if seen.recent_screens:
                    self.seen_after_ms.append((now - self._published.pop(user)) * 1e3)
            await asyncio.sleep(0.001)


async def _publish_steadily(
    redis: Redis, stream: str, name: str, rate: int, seconds: float, users: int, watch: _Watch
) -> int:
    """Publish at a constant rate, whatever has been seen so far; returns the number of events."""
    total, sent, rng = round(rate * (WARM_UP_S + seconds)), 0, random.Random(0)
    began, each = time.perf_counter(), max(1, rate // 100)
    with tqdm(total=total, desc="freshness", unit="event", disable=None) as bar:
        while sent < total:
            due = min(total, int((time.perf_counter() - began) * rate) + 1)
            events, now = [], datetime.now(UTC)
            for number in range(sent, due):
                watched = number % each == 0 and number >= rate * WARM_UP_S
                user = f"{name}-w{number}" if watched else f"{name}-u{rng.randrange(users)}"
                events.append(ScreenEvent(f"{name}-{number}", user, f"screen_{rng.randrange(50)}", now))
                if watched:
                    watch.expect(user)
            if events:
                await publish_all(redis, events, stream)
            bar.update(due - sent)
            sent = due
            await asyncio.sleep(0.001)
    return total


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2), "max_ms": round(max(milliseconds), 2)}
