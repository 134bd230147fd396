"""Autoscaling under a ramp: few clients, many, few again, and how many classifiers there are all the while."""

import random
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from loadtests import generator
from loadtests.generator import Timing
from loadtests.messages import Messages, bodies
from loadtests.targets import Running, running, served

CLASSIFIER = "ServeReplica:switchboard:Classifier"
SETTLE_S = 5.0
SCALE_DOWN_TIMEOUT_S = 180.0
"""How long to wait for the classifiers to become one again."""


def ramp(redis_url: str, folder: Path, clients: int = 64, calm_s: float = 10, busy_s: float = 60) -> dict[str, Any]:
    """Load `serve_config.yaml` as it is, without a served log, with messages that are all misses.

    Returns:
        `replicas`, pairs of seconds and classifiers whenever their number changed; when the second one came and when
        it went, counted from when the load came and went; requests and failures; requests/s in each phase;
        `memory_mib` of the service, Redis left out, before the load.
    """
    texts = Messages()
    target = served("ramp", "Switchboard as configured")
    with running(target, redis_url, folder) as service, _Watch(service) as watch:
        time.sleep(SETTLE_S)
        memory = service.memory_mib()
        quiet = generator.closed("built-in", service.port, _bodies(texts, 0, calm_s), 1, Timing(calm_s, 0))
        came = watch.now()
        busy = generator.closed("built-in", service.port, _bodies(texts, 1, busy_s), clients, Timing(busy_s, 0))
        went = watch.now()
        after = generator.closed("built-in", service.port, _bodies(texts, 2, calm_s), 1, Timing(calm_s, 0))
        watch.until_one(SCALE_DOWN_TIMEOUT_S)
        phases = {"quiet": quiet, "busy": busy, "after": after}
        return {
            "benchmark": "ramp",
            "clients": clients,
            "replicas": watch.changes,
            "up_after_s": next((round(at - came, 1) for at, n in watch.changes if n > 1 and at > came), None),
            "down_after_s": next((round(at - went, 1) for at, n in watch.changes if n == 1 and at > went), None),
            "requests": sum(phase["requests"] for phase in phases.values()),
            "failures": sum(phase["failures"] for phase in phases.values()),
            "per_second": {name: phase["per_second"] for name, phase in phases.items()},
            "memory_mib": round(memory),
        }


def _bodies(texts: Messages, phase: int, seconds: float) -> list[str]:
    return bodies(texts.unique(phase * 10_000_000), Timing(seconds, 0).bodies, random.Random(phase))


def classifiers_among(processes: Iterable[psutil.Process]) -> int:
    """How many processes are classifiers; one that has ended meanwhile is none."""
    count = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            count += CLASSIFIER in " ".join(process.cmdline())
    return count


class _Watch:
    """Counts the service's classifier processes twice a second."""

    def __init__(self, service: Running) -> None:
        self.changes: list[tuple[float, int]] = []
        self._service, self._begun = service, time.monotonic()
        self._over, self._thread = threading.Event(), threading.Thread(target=self._run)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def now(self) -> float:
        return round(time.monotonic() - self._begun, 1)

    def until_one(self, seconds: float) -> None:
        """Wait until one classifier is left, or no longer."""
        for _ in tqdm(range(int(seconds)), desc="scaling down", unit="s", disable=None):
            if self.changes and self.changes[-1][1] == 1:
                return
            self._over.wait(1)

    def _run(self) -> None:
        while not self._over.wait(0.5):
            count = classifiers_among(self._service.processes())
            if count and (not self.changes or self.changes[-1][1] != count):
                self.changes.append((self.now(), count))
