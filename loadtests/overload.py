"""More messages than a service can answer: how many are answered in time all the same, and what the others are told."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from loadtests import generator
from loadtests.generator import Generator, Timing
from loadtests.messages import Messages, bodies
from loadtests.targets import Target, running

SHARES = (0.8, 1.2, 2.0)
"""Messages offered a second, as shares of what the same service answers in a closed loop."""
CLIENTS = 64
CONNECTIONS = 3_000
"""At the most: HAProxy takes 4,096, and of waiting messages each has one."""
DEADLINE_S = 2.0
"""Within which an answer counts: `deadline_ms` of `serve_config.yaml`."""
Row = dict[str, Any]


def overload(
    targets: Sequence[Target], redis_url: str, folder: Path, closed: Generator, timing: Timing, shares: Sequence[float]
) -> list[Row]:
    """Offer each service, freshly started, shares of its own throughput, all misses, in an open loop.

    Args:
        closed: generator of the closed loop that finds the throughput.
        timing: of each open loop.

    Returns:
        For each target and share: what was offered and, a second, answered within `DEADLINE_S` and in all, refused
        with 429, late with 504, and failed otherwise; latency of the answers in ms.
    """
    rows: list[Row] = []
    with tqdm(total=len(targets) * len(shares), desc="overload", unit="load") as bar:
        for target in targets:
            texts, rng = Messages().unique(0), random.Random(0)
            with running(target, redis_url, folder / target.name) as service:
                warm = Timing(3, 2)
                sent = bodies(texts, warm.bodies, rng)
                most = generator.closed(closed, service.port, sent, CLIENTS, warm)["per_second"]
                for share in shares:
                    offered = share * most
                    sent = bodies(texts, int(offered * (timing.seconds + timing.warm_up) * 1.2) + 1, rng)
                    found = generator.opened(service.port, sent, offered, timing, CONNECTIONS, DEADLINE_S)
                    rows.append({"target": target.name, "share": share, **as_row(found, offered)})
                    bar.update()
    return rows


def as_row(found: dict[str, Any], offered: float) -> Row:
    """A load's figures as a service's answers and refusals a second."""
    seconds, statuses = found["seconds"], found["statuses"]
    refused, late = statuses.get("429", 0), statuses.get("504", 0)
    return {
        "offered": round(offered),
        "in_time": found["in_time_per_second"],
        "per_second": found["per_second"],
        "refused": round(refused / seconds, 1),
        "late": round(late / seconds, 1),
        "failures": found["failures"] - refused - late,
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }
