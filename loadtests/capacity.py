"""What a message costs each part in processor time, and what follows from it: throughput, replicas, cores.

    throughput = min over parts of  replicas * 1 / cost(part),  and  cores / sum of costs

The costs are measured with one classifier and predict the throughput with two, which is then measured, too.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from loadtests import generator
from loadtests.generator import Timing
from loadtests.messages import Messages, bodies
from loadtests.targets import Running, classifiers, running, served

CLIENTS = 64
PRIMING = 2_000
"""Messages before the load that is measured, which sends others."""
PARTS = {
    "Ingress": "ServeReplica:switchboard:Ingress",
    "FeatureGatherer": "ServeReplica:switchboard:FeatureGatherer",
    "Preprocessor": "ServeReplica:switchboard:Preprocessor",
    "PredictionCache": "ServeReplica:switchboard:PredictionCache",
    "Classifier": "ServeReplica:switchboard:Classifier",
    "HAProxy": "haproxy",
    "Redis": "redis-server",
    "load generator": "loadtests.load",
}
"""What a part's processes are called."""
OTHERS = "Ray's other processes"
HOURS_A_MONTH = 730
UTILISATION = 0.6
"""Of a core, at the most, in a sizing: queues grow with 1 / (1 - utilisation)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load, and the processor seconds a message that each part spent in it."""

    per_second: float
    p50_ms: float
    failures: int
    costs: Mapping[str, float]


def capacity(redis: psutil.Process, redis_url: str, folder: Path, timing: Timing, core_hour: float) -> dict[str, Any]:
    """Measure with one classifier, predict two, measure two, and size the graph for larger loads.

    Args:
        core_hour: what a core costs an hour, in any currency.
    """
    texts = Messages()
    measured = {}
    for replicas in (1, 2):
        target = served(f"classifiers-{replicas}", f"{replicas} classifiers", partial(classifiers, replicas=replicas))
        with running(target, redis_url, folder / target.name) as service:
            measured[replicas] = _measure(service, redis, texts, replicas, timing)
    cores = psutil.cpu_count() or 1
    costs = measured[1].costs
    return {
        "benchmark": "capacity",
        "clients": CLIENTS,
        "cores": cores,
        "milliseconds_a_message": {part: round(cost * 1000, 3) for part, cost in costs.items()},
        "replicas": {
            str(n): {
                "predicted_per_second": round(throughput(costs, n, cores), 1),
                "per_second": measured[n].per_second,
                "p50_ms": measured[n].p50_ms,
                "failures": measured[n].failures,
            }
            for n in (1, 2)
        },
        "core_hour": core_hour,
        "sizing": [sizing(costs, rate, hits, core_hour) for rate in (1_000, 10_000, 100_000) for hits in (0.0, 0.8)],
    }


def throughput(costs: Mapping[str, float], replicas: int, cores: int) -> float:
    """Messages/s that are all misses, from processor seconds a message and part."""
    alone = [costs[part] / (replicas if part == "Classifier" else 1) for part in costs if part != OTHERS]
    return min(1 / max(alone), cores / sum(costs.values()))


def sizing(costs: Mapping[str, float], rate: float, hits: float, core_hour: float) -> dict[str, Any]:
    """Replicas of each part, shards of Redis among them, cores and what these cost.

    Args:
        rate: messages/s, of which the share `hits` is known to the cache.
    """
    needed = {
        part: rate * cost * (1 - hits if part == "Classifier" else 1)
        for part, cost in costs.items()
        if part not in (OTHERS, "load generator")
    }
    replicas = {part: max(1, math.ceil(cores / UTILISATION)) for part, cores in needed.items()}
    cores = math.ceil(sum(needed.values()) / UTILISATION)
    cost = round(cores * core_hour * HOURS_A_MONTH)
    return {"rate": rate, "hits": hits, "replicas": replicas, "cores": cores, "cost_a_month": cost}


def _measure(service: Running, redis: psutil.Process, texts: Messages, phase: int, timing: Timing) -> Measured:
    seconds = timing.seconds + timing.warm_up
    sent = bodies(texts.unique(phase * 1_000_000), timing.bodies + PRIMING, random.Random(phase))
    generator.closed("built-in", service.port, sent[:PRIMING], CLIENTS, Timing(5, 0))
    before, children = _spent(service, redis), psutil.Process().cpu_times()
    figures = generator.closed("built-in", service.port, sent[PRIMING:], CLIENTS, timing)
    after, spent = _spent(service, redis), psutil.Process().cpu_times()
    messages = figures["per_second"] * seconds
    costs = {part: (after[part] - before[part]) / messages for part in after}
    loading = spent.children_user + spent.children_system - children.children_user - children.children_system
    costs |= {"load generator": loading / messages}
    return Measured(figures["per_second"], figures["p50_ms"], figures["failures"], costs)


def _spent(service: Running, redis: psutil.Process) -> dict[str, float]:
    spent = dict.fromkeys([*PARTS, OTHERS], 0.0)
    for process in [redis, *service.processes()]:
        try:
            name, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        part = next((part for part, mark in PARTS.items() if mark in name), OTHERS)
        spent[part] += times.user + times.system
    return spent
