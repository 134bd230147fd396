"""What `scripts/compare` does: the comparison, the sweep, and the tables of docs/performance.md."""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from local_redis import LocalRedis, RedisUnavailable
from ports import free_port
from redis_url import seed
from terminal import ENDS, accept_any_encoding, on_end

from loadtests import generator, options, overload, plot, report
from loadtests.capacity import capacity
from loadtests.check import Offline, held_by
from loadtests.compare import Comparison, Plan
from loadtests.conditions import ROOT, conditions
from loadtests.figures import goals
from loadtests.generator import LoadError, Timing
from loadtests.messages import Messages, bodies
from loadtests.population import USERS
from loadtests.ramp import ramp
from loadtests.sweep import Sweep
from loadtests.targets import (
    Target,
    TargetError,
    all_targets,
    configuration,
    patient,
    reflector,
    running,
    switchboard,
    variants,
)

PAGE = ROOT / "docs" / "performance.md"
RUNS = ROOT / "docs" / "runs"
MAX_DEGRADED = 0.2
"""Of the answers checked: those without features say nothing about features, and cost less."""
SAVED = ("compare.json", "compare.png")
REPORTS = {
    "": (SAVED[0], report.markdown),
    " --sweep": ("sweep.json", report.sweep_markdown),
    " --capacity": ("capacity.json", report.capacity_markdown),
    " --overload": ("overload.json", report.overload_markdown),
}
"""The option whose place in the page it is, the file of its saved run, and what makes tables of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 for wrong, refused or failed answers, 2 for what could not be measured, 128 and more for a signal."""
    arguments = options.parse(argv)
    accept_any_encoding()
    _end_in_order()
    try:
        if arguments.mode == "report":
            return _report(arguments.out or RUNS)
        runs = {"compare": _compare, "sweep": _sweep, "ramp": _ramp, "capacity": _capacity, "overload": _overload}
        with tempfile.TemporaryDirectory(prefix="switchboard-compare-") as scratch:
            return runs[arguments.mode](arguments, Path(scratch))
    except (TargetError, LoadError, RedisUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _end_in_order() -> None:
    """Have the first signal end what runs, in order; further ones do not disturb that, which may take Ray seconds."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in ENDS:
            signal.signal(other, signal.SIG_IGN)
        print("error: interrupted; ending what was started", file=sys.stderr)
        sys.exit(128 + number)

    on_end(end)


def _compare(arguments: argparse.Namespace, scratch: Path) -> int:
    plan = _plan(arguments)
    out = _folder(arguments)
    targets = _targets(arguments)
    with _redis(scratch) as server:
        saved = {
            **conditions(),
            "rounds": 0,
            "seconds": plan.timing.seconds,
            "warm_up_s": plan.timing.warm_up,
            "generator": plan.generator,
            "generator_limit": _limit(plan, server.url, scratch),
            "targets": {target.name: target.title for target in targets},
        }
        desks = switchboard(configuration())["args"]["desks"]
        offline = Offline(held_by(server.url, [f"u{i}" for i in range(1, USERS + 1)]), desks)
        comparison = Comparison(plan, targets, server.url, psutil.Process(server.pid), scratch, offline)
        for number in comparison.rounds():
            saved |= {"rounds": number + 1, "loads": comparison.rows, "memory": comparison.memory}
            saved["checked"] = asdict(comparison.verdict)
            saved["goals"] = goals(comparison.rows, comparison.memory)
            _save(out / SAVED[0], saved)
    plot.comparison_png(saved, out / SAVED[1])
    print(report.markdown(saved))
    for example in saved["checked"]["examples"]:
        print(f"mismatch: {example}", file=sys.stderr)
    failures = sum(row["failures"] for row in saved["loads"])
    line = {key: saved[key] for key in ("machine", "commit", "goals")}
    line |= {name: saved["checked"][name] for name in ("checked", "mismatches", "degraded", "refused")}
    line |= {"failures": failures, "saved": str(out / SAVED[0])}
    print(json.dumps(line, ensure_ascii=False))
    return exit_code(line)


def exit_code(line: Mapping[str, Any]) -> int:
    """Of a comparison's last line: 1 where an answer was wrong, refused or lost, none was checked, or many degraded."""
    wrong = any(line[name] for name in ("mismatches", "refused", "failures"))
    return int(wrong or not line["checked"] or line["degraded"] > line["checked"] * MAX_DEGRADED)


def _sweep(arguments: argparse.Namespace, scratch: Path) -> int:
    plan, out = _plan(arguments), _folder(arguments)
    sweep = Sweep(scratch, arguments.quick, arguments.classifiers, plan.generator, plan.timing)
    saved = {**conditions(), "seconds": plan.timing.seconds, "generator": plan.generator, **sweep.run()}
    file = out / "sweep.json"
    _save(file, saved)
    plot.sweep_png(saved, file.with_suffix(".png"))
    print(report.sweep_markdown(saved))
    failures = sum(row["failures"] for quantity in saved["sweeps"].values() for row in quantity["rows"])
    line = {key: saved[key] for key in ("machine", "commit")} | {"failures": failures, "saved": str(file)}
    print(json.dumps(line))
    return 1 if failures else 0


def _ramp(arguments: argparse.Namespace, scratch: Path) -> int:
    out = _folder(arguments)
    with _redis(scratch) as server:
        saved = {**conditions(), **ramp(server.url, scratch / "ramp", busy_s=arguments.seconds)}
    _save(out / "ramp.json", saved)
    print(json.dumps(saved, ensure_ascii=False))
    return 1 if saved["failures"] else 0


def _capacity(arguments: argparse.Namespace, scratch: Path) -> int:
    out, timing = _folder(arguments), Timing(arguments.seconds, 2.0)
    with _redis(scratch) as server:
        saved = {
            **conditions(),
            **capacity(psutil.Process(server.pid), server.url, scratch, timing, arguments.core_hour),
        }
    _save(out / "capacity.json", saved)
    print(report.capacity_markdown(saved))
    print(json.dumps(saved, ensure_ascii=False))
    return 1 if any(row["failures"] for row in saved["replicas"].values()) else 0


def _overload(arguments: argparse.Namespace, scratch: Path) -> int:
    out, timing = _folder(arguments), Timing(arguments.seconds, 1.0)
    chosen = generator.chosen("built-in" if arguments.quick else arguments.generator, 3)
    targets = [target for target in _targets(arguments) if arguments.only or target.name in ("fastapi", "graph")]
    shares = overload.SHARES[-1:] if arguments.quick else overload.SHARES
    with _redis(scratch) as server:
        rows = overload.overload(targets, server.url, scratch, chosen, timing, shares)
    titles = {target.name: target.title for target in targets}
    saved = {**conditions(), "seconds": arguments.seconds, "targets": titles, "rows": rows}
    _save(out / "overload.json", saved)
    print(report.overload_markdown(saved))
    failures = sum(row["failures"] for row in rows)
    print(json.dumps({"machine": saved["machine"], "commit": saved["commit"], "rows": rows, "failures": failures}))
    return 1 if failures else 0


def _report(folder: Path) -> int:
    """Put the tables of the saved runs into docs/performance.md."""
    page, used = PAGE.read_text(encoding="utf-8"), list[str]()
    for option, (name, tables) in REPORTS.items():
        file = folder / name
        if not file.is_file():
            continue
        try:
            page = report.insert(page, tables(report.load(file)), option)
        except (OSError, ValueError, KeyError) as error:
            print(f"error: {file}: {error!r}; measure it again", file=sys.stderr)
            return 2
        used.append(str(file))
    if not used:
        print(f"error: {folder}: nothing saved there; run scripts/compare first", file=sys.stderr)
        return 2
    PAGE.write_text(page, encoding="utf-8")
    print(json.dumps({"page": str(PAGE), "from": used}))
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.quick:
        timing = Timing(arguments.seconds, 0.3)
        return Plan(1, timing, (1, 16), "built-in", settle_s=0, fill=500, check=200, check_all=True)
    chosen = generator.chosen(arguments.generator, arguments.seconds)
    timing = Timing(arguments.seconds, 2.0)
    clients = (1, 16, 64, 256)
    return Plan(arguments.rounds, timing, clients, chosen, settle_s=5, fill=20_000, check=1000, check_all=False)


def _targets(arguments: argparse.Namespace) -> list[Target]:
    targets = all_targets(arguments.classifiers, *((patient,) if arguments.quick else ()))
    if arguments.only:
        return [target for target in [*targets, *variants(arguments.classifiers)] if target.name in arguments.only]
    return targets


def _limit(plan: Plan, redis_url: str, scratch: Path) -> float:
    """Requests per second that the load generator reaches on a server that costs next to nothing."""
    with running(reflector(), redis_url, scratch / "reflector") as service:
        sent = bodies(Messages().unique(0), 20_000, random.Random(0)) * 10
        return float(generator.closed(plan.generator, service.port, sent, 64, plan.timing)["per_second"])


@contextmanager
def _redis(scratch: Path) -> Iterator[LocalRedis]:
    """One Redis for every target, with the demo users in it."""
    with LocalRedis(scratch / "redis", lambda text: print(text, file=sys.stderr), free_port()) as server:
        asyncio.run(seed(server.url, lambda text: None))
        yield server


def _save(file: Path, saved: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _folder(arguments: argparse.Namespace) -> Path:
    """Where to save: a quick run is no measurement, so it does not replace one."""
    folder: Path = arguments.out or (ROOT / ".run" / "compare" if arguments.quick else RUNS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise LoadError(f"--out {folder}: {error.strerror}") from None
