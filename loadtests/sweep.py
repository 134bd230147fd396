"""Cost as work grows: text length, clients, users in the store, size of the cache; one quantity at a time."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from local_redis import LocalRedis
from ports import free_port
from tqdm import tqdm

from loadtests import generator
from loadtests.compare import STRETCH
from loadtests.generator import UNTIL_ALL_ARE_SENT, Generator, Timing
from loadtests.messages import Messages, bodies
from loadtests.population import USERS, populate
from loadtests.targets import Config, Running, Target, all_targets, classifiers, memory_mib, running, served

Row = dict[str, Any]
BUSY = 64
"""Clients that throughput is measured with; latency is that of one client."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is varied, how it is shown, and its values."""

    title: str
    unit: str
    base: int
    """Of the logarithmic axis."""
    values: tuple[int, ...]


QUANTITIES = {
    "length": Quantity("Text length", "words of a message", 2, (4, 8, 16, 32, 64, 90)),
    "clients": Quantity("Clients, and so messages in a batch", "clients", 2, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    "users": Quantity("Users in the feature store", "users", 10, (1_000, 10_000, 100_000, 1_000_000)),
    "cache": Quantity("Size of the prediction cache, Zipf texts", "MiB", 2, (1, 2, 4, 8, 16, 64)),
}
QUICK = {"length": (4, 90), "clients": (1, 4), "users": (1_000, 2_000), "cache": (1,)}


@dataclass(slots=True)
class Sweep:
    """Varies one quantity at a time on a service by hand and on the graph, each with a Redis of its own."""

    folder: Path
    quick: bool
    replicas: int
    generator: Generator
    timing: Timing
    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in QUANTITIES})
    _messages: Messages = field(default_factory=Messages)
    _loads: int = 0

    def values(self, name: str) -> tuple[int, ...]:
        return QUICK[name] if self.quick else QUANTITIES[name].values

    def run(self) -> dict[str, Any]:
        """Measure everything.

        Returns:
            `targets`, names to titles, and `sweeps`: for each quantity its title, unit, base and rows, each with
            target, value, per_second, p50_ms, failures, and for users and cache what Redis holds or the share of hits.

        Raises:
            TargetError, LoadError: a service did not start, or a load did not run.
        """
        targets = [target for target in all_targets(self.replicas) if target.name in ("fastapi", "graph")]
        per_target = sum(len(self.values(name)) for name in ("length", "clients", "users"))
        with tqdm(total=per_target * len(targets) + len(self.values("cache")), unit="point", disable=None) as bar:
            for target in targets:
                with self._started(target) as (service, redis):
                    for name, measure in self._measures(redis).items():
                        for value in self.values(name):
                            bar.set_description(f"{target.name}, {name} {value}")
                            self.rows[name].append({"target": target.name, "value": value, **measure(service, value)})
                            bar.update()
            for mebibytes in self.values("cache"):
                bar.set_description(f"graph, cache {mebibytes} MiB")
                target = served("graph", "", partial(_with_cache, replicas=self.replicas, mebibytes=mebibytes))
                with self._started(target) as (service, _):
                    self.rows["cache"].append({"target": "graph", "value": mebibytes, **self._hits(service)})
                bar.update()
        shown = {
            name: {"title": q.title, "unit": q.unit, "base": q.base, "rows": self.rows[name]}
            for name, q in QUANTITIES.items()
        }
        return {"targets": {target.name: target.title for target in targets}, "sweeps": shown}

    def _measures(self, redis: LocalRedis) -> dict[str, Callable[[Running, int], Row]]:
        filled = 0

        def users(service: Running, value: int) -> Row:
            nonlocal filled
            populate(redis.url, filled + 1, value)
            filled = value
            return self._both(service, users=value) | {"redis_mib": round(memory_mib(psutil.Process(redis.pid)), 1)}

        return {
            "length": lambda service, value: self._both(service, words=value),
            "clients": lambda service, value: self._load(service, value),
            "users": users,
        }

    def _both(self, service: Running, words: int | None = None, users: int = USERS) -> Row:
        """Throughput of many clients, latency of one."""
        busy, alone = (self._load(service, clients, words, users) for clients in (BUSY, 1))
        latency = {name: alone[name] for name in ("p50_ms", "p99_ms")}
        return {"per_second": busy["per_second"], **latency, "failures": busy["failures"] + alone["failures"]}

    def _load(self, service: Running, clients: int, words: int | None = None, users: int = USERS) -> Row:
        self._loads += 1
        texts = self._messages.unique(self._loads * STRETCH, words)
        sent = bodies(texts, self.timing.bodies, random.Random(self._loads), users)
        figures = generator.closed(self.generator, service.port, sent, clients, self.timing)
        return {name: figures[name] for name in ("per_second", "p50_ms", "p99_ms", "failures")}

    def _hits(self, service: Running) -> Row:
        """With a cache that popular texts have filled: throughput, latency and share of hits."""
        rng = random.Random(0)
        fill, sent = (bodies(self._messages.popular(rng), n, rng) for n in (self._fill, self.timing.bodies))
        generator.closed("built-in", service.port, fill, BUSY, UNTIL_ALL_ARE_SENT)
        figures = generator.closed("built-in", service.port, sent, BUSY, self.timing)
        row = {name: figures[name] for name in ("per_second", "p50_ms", "failures")}
        return row | {"hits": figures["cached"]}

    @property
    def _fill(self) -> int:
        return 200 if self.quick else 40_000

    @contextmanager
    def _started(self, target: Target) -> Iterator[tuple[Running, LocalRedis]]:
        self._loads += 1
        folder = self.folder / f"{target.name}-{self._loads}"
        with (
            LocalRedis(folder / "redis", lambda text: None, free_port()) as redis,
            running(target, redis.url, folder) as service,
        ):
            yield service, redis


def _with_cache(application: Config, *, replicas: int, mebibytes: int) -> None:
    classifiers(application, replicas)
    for deployment in application["deployments"]:
        if deployment["name"] == "PredictionCache":
            deployment["user_config"]["max_bytes"] = mebibytes * 2**20
