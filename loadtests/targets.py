"""The services that are compared: how each is started, and what it costs while it runs.

Every target is a child process with ports, a state folder and a log of its own, and the same Redis as the others.
"""

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml
from ports import free_port

PYTHON = os.environ.get("SERVICE_PYTHON", sys.executable)
"""The interpreter that runs the services, with what is installed for it."""
ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 120.0
LRU_ENTRIES = 50_000
LINES, WIDTH = 8, 300
"""How many of a log's last lines an error shows, and how many characters of each."""
Config = dict[str, Any]
Change = Callable[[Config], None]


class TargetError(RuntimeError):
    """A service that does not start; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service to compare.

    Args:
        command: port and folder to the command line; the folder is the target's own.
        ready: what the log shows when it answers, and how often.
        answers: whether it answers the question, so that answers can be checked.
        caches: whether it remembers texts, so that it has something to learn before popular ones are measured.
    """

    name: str
    title: str
    command: Callable[[int, Path], list[str]]
    ready: tuple[str, int]
    environment: Mapping[str, str] = field(default_factory=dict)
    answers: bool = True
    caches: bool = True


@dataclass(frozen=True, slots=True)
class Running:
    """A started target."""

    target: Target
    port: int
    process: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """The service's processes, its own first."""
        return [self.process, *self.process.children(recursive=True)]

    def memory_mib(self) -> float:
        """Memory of all its processes, shared pages counted once; see `memory_mib`."""
        return sum(memory_mib(process) for process in self.processes())


def memory_mib(process: psutil.Process) -> float:
    """Proportional set size: private pages, and of shared ones a fair share (Linux); elsewhere the private pages."""
    try:
        memory = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(getattr(memory, "pss", 0) or memory.uss) / 2**20


def baseline(name: str, title: str, entries: int, workers: int, inference: str = "thread") -> Target:
    """The service by hand, with a text cache of some entries in each worker; inference in a `thread` or `inline`."""

    def command(port: int, folder: Path) -> list[str]:
        return [
            *(PYTHON, "-m", "uvicorn", "--factory", "loadtests.baseline.app:build", "--workers", str(workers)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port", str(port)),
        ]

    environment = {"TEXT_CACHE": str(entries), "INFERENCE": inference}
    ready = ("Application startup complete", workers)
    return Target(name, f"{title}, {workers} workers", command, ready, environment, caches=entries > 0)


def workers(replicas: int) -> int:
    """Processes of the service by hand: one a core, and no fewer than the graph has classifiers."""
    return max(replicas, os.cpu_count() or 1)


def served(name: str, title: str, *changes: Change, answers: bool = True) -> Target:
    """An application on Ray Serve, by `scripts/serve` with a changed copy of serve_config.yaml.

    Its log of what was served is off: the service by hand keeps none.
    """

    def command(port: int, folder: Path) -> list[str]:
        file = folder / "serve_config.yaml"
        file.write_text(yaml.safe_dump(configuration(*changes), sort_keys=False))
        return [
            *(PYTHON, str(ROOT / "scripts" / "supervise.py"), "--config", str(file)),
            *("--state", str(folder / "state"), "--port", str(port), "--served-log", "off"),
            *("--metrics-port", str(free_port())),
        ]

    return Target(name, title, command, ("ready after", 1), answers=answers, caches=answers)


def configuration(*changes: Change) -> Config:
    """serve_config.yaml with its application `switchboard` changed, by one after the other."""
    config: Config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    for change in changes:
        change(switchboard(config))
    return config


def switchboard(config: Config) -> Config:
    """The application `switchboard` of a Serve configuration."""
    return next(application for application in config["applications"] if application["name"] == "switchboard")


def classifiers(application: Config, replicas: int) -> None:
    """A fixed number of classifiers: one that starts within a measurement would disturb it."""
    for deployment in application["deployments"]:
        if deployment["name"] == "Classifier":
            deployment.pop("autoscaling_config", None)
            deployment["num_replicas"] = replicas


def patient(application: Config, deadline_ms: int = 20_000) -> None:
    """Limits that a busy machine does not reach, where answers are checked and speed says nothing."""
    application["args"] |= {"redis_timeout_ms": 2000, "gather_timeout_ms": 4000}
    for deployment in application["deployments"]:
        if deployment["name"] == "Ingress":
            deployment["user_config"]["deadline_ms"] = deadline_ms


DEPLOYED = {
    "gather": "FeatureGatherer",
    "preprocess": "Preprocessor",
    "cache": "PredictionCache",
    "classify": "Classifier",
}


def inline(application: Config, *stages: str) -> None:
    """These stages in the ingress process."""
    application["args"] |= dict.fromkeys(stages, "inline")
    gone = {DEPLOYED[stage] for stage in stages}
    application["deployments"] = [d for d in application["deployments"] if d["name"] not in gone]


def whole(application: Config, ingresses: int) -> None:
    """All stages in each of some ingress replicas."""
    inline(application, *DEPLOYED)
    (ingress,) = application["deployments"]
    ingress["num_replicas"] = ingresses


def nothing(application: Config) -> None:
    """The do-nothing application with the ingress' settings."""
    ingress = copy.deepcopy(next(d for d in application["deployments"] if d["name"] == "Ingress"))
    ingress.pop("user_config", None)
    application |= {"import_path": "loadtests.ceiling:build", "args": {}, "deployments": [ingress]}


def all_targets(replicas: int = 2, *changes: Change) -> list[Target]:
    """(a) by hand, without and with a cache, (b), (c) and (c+) the graph, changed further, (d) the ceiling."""

    def graph(name: str, title: str, *stages: str) -> Target:
        """The graph with some stages inline."""
        fixed = partial(classifiers, replicas=replicas)
        return served(name, f"Switchboard, {title}", fixed, lambda application: inline(application, *stages), *changes)

    return [
        baseline("fastapi", "FastAPI, no cache", 0, workers(replicas)),
        baseline("fastapi_lru", "FastAPI, LRU cache", LRU_ENTRIES, workers(replicas)),
        graph("graph", "every stage a deployment"),
        graph("graph_inline", "gather and preprocess inline", "gather", "preprocess"),
        graph("graph_lean", "all but the classifiers inline", "gather", "preprocess", "cache"),
        served("ceiling", "Ray Serve doing nothing", nothing, answers=False),
    ]


def reflector() -> Target:
    """Constant answers from a bare socket: what the load generator can do."""

    def command(port: int, folder: Path) -> list[str]:
        return [sys.executable, "-m", "loadtests.reflector", str(port)]

    return Target(
        "reflector", "constant answers from a bare socket", command, ("listening", 1), answers=False, caches=False
    )


def variants(replicas: int = 2) -> list[Target]:
    """Services that are compared only when they are named."""
    processes = workers(replicas)
    title = f"Switchboard, all stages in each of {processes} ingress replicas"
    return [
        baseline("fastapi_inline", "FastAPI, no cache, inference on the loop", 0, processes, "inline"),
        served("graph_whole", title, lambda application: whole(application, processes)),
    ]


@contextmanager
def running(target: Target, redis_url: str, folder: Path) -> Iterator[Running]:
    """Start a target, wait until it is ready, and end it with all its processes.

    Raises:
        TargetError: it did not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "log"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    environment = {**os.environ, **target.environment, "REDIS_URL": redis_url, "PYTHONPATH": paths}
    with log.open("w") as output:
        child = subprocess.Popen(
            target.command(port, folder), cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    service = Running(target, port, psutil.Process(child.pid))
    try:
        _wait_until_ready(target, child, log)
        yield service
    finally:
        try:
            _end(service, child)
        except SystemExit:  # of a signal, after which others are ignored
            _end(service, child)
            raise


def _wait_until_ready(target: Target, child: "subprocess.Popen[bytes]", log: Path) -> None:
    marker, times = target.ready
    until = time.monotonic() + START_TIMEOUT_S
    while log.read_text(errors="replace").count(marker) < times:
        if child.poll() is not None:
            raise TargetError(f"{target.title}: ended with code {child.returncode}; {_last_lines(log)}")
        if time.monotonic() > until:
            raise TargetError(f"{target.title}: not ready after {START_TIMEOUT_S:.0f} s; {_last_lines(log)}")
        time.sleep(0.1)


def _last_lines(log: Path) -> str:
    """The end of a log, for a message that outlives its file."""
    lines = [line[:WIDTH] for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n  ".join(["its log ends with", *lines[-LINES:]]) if lines else "its log is empty"


def _end(service: Running, child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL for what has not ended in time."""
    family = service.processes() if child.poll() is None else []
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=STOP_TIMEOUT_S)
    for process in psutil.wait_procs(family, timeout=10)[1]:
        process.kill()
    child.wait()
