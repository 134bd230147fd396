"""The graph against a FastAPI service by hand and against Ray Serve doing nothing, in one run: `scripts/compare`.

One target runs at a time, all on the same Redis. A round measures every target once, each freshly started, so that
whatever changes on the machine in the meantime touches all of them alike, and what differs from start to start is
part of the spread. Each round begins with another target, so that none is always the first or the last.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from loadtests import generator
from loadtests.check import Offline, Verdict
from loadtests.generator import MAX_PER_SECOND, UNTIL_ALL_ARE_SENT, Generator, LoadError, Timing
from loadtests.messages import Messages, bodies
from loadtests.targets import Running, Target, memory_mib, running

Texts = Literal["unique", "zipf"]
TEXTS: tuple[Texts, ...] = ("unique", "zipf")
STRETCH = 250_000
"""Unique messages set aside for one load."""


def order(targets: Sequence[Target], number: int, rounds: int) -> list[Target]:
    """The targets of a round, as given in round 0; the others begin elsewhere, spread over all targets."""
    begin = number * len(targets) // rounds
    return [*targets[begin:], *targets[:begin]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long."""

    rounds: int
    timing: Timing
    clients: tuple[int, ...]
    generator: Generator
    settle_s: float
    """From ready to the reading of memory at rest."""
    fill: int
    """Zipf messages sent before the first Zipf load, so that caches hold what is popular."""
    check: int
    """Messages of each kind that all clients send at once before the loads, every answer checked."""
    check_all: bool
    """Whether to check the answers of the closed loops, too; those of the open loops are checked in any case."""

    @property
    def steps(self) -> int:
        """Loads of one target in one round, and its start."""
        return 1 + len(TEXTS) * (len(self.clients) + 2)


@dataclass(slots=True)
class Comparison:
    """Measures targets and collects rows, one for each load."""

    plan: Plan
    targets: Sequence[Target]
    redis_url: str
    redis_process: Any
    folder: Path
    offline: Offline
    rows: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    _messages: Messages = field(default_factory=Messages)
    _loads: int = 0
    _common: dict[str, float] = field(default_factory=dict)

    def rounds(self) -> Iterator[int]:
        """Measure round after round; yields the number of each when it is over.

        Raises:
            TargetError, LoadError: a target did not start, or a load did not run.
        """
        total = self.plan.rounds * len(self.targets) * self.plan.steps
        with tqdm(total=total, unit="load", disable=None) as bar:
            for number in range(self.plan.rounds):
                for target in order(self.targets, number, self.plan.rounds):
                    bar.set_description(f"round {number + 1}/{self.plan.rounds} {target.name}")
                    folder = self.folder / f"{target.name}-{number}"
                    with running(target, self.redis_url, folder) as service:
                        self._measure(service, number, bar)
                yield number

    def _measure(self, service: Running, number: int, bar: Any) -> None:
        target = service.target
        time.sleep(self.plan.settle_s)
        parts = {"service_mib": service.memory_mib(), "redis_mib": memory_mib(self.redis_process)}
        self.memory.append({"target": target.name, "round": number, **parts})
        bar.update()
        for texts in TEXTS:
            if target.answers:
                self._check(service, texts)
            if target.caches and texts == "zipf":
                self._fill(service)
            rows = []
            for clients in self.plan.clients:
                rows.append(self._closed(service, texts, clients) | {"clients": clients})
                bar.update()
            most = max(row["per_second"] for row in rows)
            common = self._common.setdefault(texts, most / 2)
            for share, rate in (("own half", most / 2), ("common", common)):
                rows.append(self._open(service, texts, max(1.0, rate)) | {"share": share, "rate": round(rate, 1)})
                bar.update()
            self.rows += [{"target": target.name, "texts": texts, "round": number, **row} for row in rows]

    def _closed(self, service: Running, texts: Texts, clients: int) -> dict[str, Any]:
        plan, sent = self.plan, self._bodies(texts, self.plan.timing.bodies)
        if plan.check_all and service.target.answers:
            figures, answers = generator.answered(service.port, sent, plan.timing, clients=clients)
            self._judge(service, answers)
            return figures
        figures = generator.closed(plan.generator, service.port, sent, clients, plan.timing)
        if texts == "unique" and service.target.answers and figures["requests"] > plan.timing.seconds * MAX_PER_SECOND:
            raise LoadError(f"{service.target.title} is faster than texts were laid in for: raise MAX_PER_SECOND")
        return figures

    def _open(self, service: Running, texts: Texts, rate: float) -> dict[str, Any]:
        timing = self.plan.timing
        sent = self._bodies(texts, int(rate * (timing.seconds + timing.warm_up) * 1.2) + 100)
        figures, answers = generator.answered(service.port, sent, timing, rate=rate)
        if service.target.answers:
            self._judge(service, answers)
        return figures

    def _check(self, service: Running, texts: Texts) -> None:
        """Send some messages from as many clients as there ever are, and check every answer."""
        sent = self._bodies(texts, self.plan.check)
        _, answers = generator.answered(service.port, sent, UNTIL_ALL_ARE_SENT, clients=max(self.plan.clients))
        self._judge(service, answers)

    def _judge(self, service: Running, answers: Sequence[tuple[str, int, bytes]]) -> None:
        verdict = self.offline.check(answers)
        verdict.examples = [f"{service.target.name}, {example}" for example in verdict.examples]
        self.verdict.add(verdict)

    def _fill(self, service: Running) -> None:
        """Let caches learn what is popular."""
        sent = self._bodies("zipf", self.plan.fill)
        generator.closed("built-in", service.port, sent, max(self.plan.clients), UNTIL_ALL_ARE_SENT)

    def _bodies(self, texts: Texts, count: int) -> list[str]:
        """Bodies for the next load; unique ones are new to all targets and to their Redis."""
        self._loads += 1
        rng = random.Random(self._loads)
        drawn = self._messages.unique(self._loads * STRETCH) if texts == "unique" else self._messages.popular(rng)
        return bodies(drawn, count, rng)
