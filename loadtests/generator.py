"""Runs a load in a process of its own, by wrk or by the built-in generator, and returns its figures."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parent
Generator = Literal["wrk", "built-in"]
MAX_PER_SECOND = 12_000
"""Bodies laid in for each second: more than any target here answers."""


class LoadError(RuntimeError):
    """Why a load could not be measured, in one sentence."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a load: those measured, and those before, which do not count."""

    seconds: float
    warm_up: float

    @property
    def bodies(self) -> int:
        """Bodies that last to the end."""
        return int((self.seconds + self.warm_up) * MAX_PER_SECOND)


UNTIL_ALL_ARE_SENT = Timing(600, 0)


def chosen(wanted: Generator | Literal["auto"], seconds: float) -> Generator:
    """The generator of closed loops of some seconds; `auto` is wrk where it is installed and the seconds are whole.

    Raises:
        LoadError: wrk is wanted, but it is not installed or would round the seconds.
    """
    installed, whole = shutil.which("wrk") is not None, float(seconds).is_integer()
    if wanted == "auto":
        return "wrk" if installed and whole else "built-in"
    if wanted == "wrk" and not installed:
        raise LoadError("wrk is not on the PATH: install it, or leave out --generator wrk")
    if wanted == "wrk" and not whole:
        raise LoadError(f"wrk takes whole seconds, not {seconds:g}: change --seconds, or use --generator built-in")
    return wanted


def closed(generator: Generator, port: int, bodies: Sequence[str], clients: int, timing: Timing) -> dict[str, Any]:
    """Figures of a closed loop; see `loadtests.load.figures`. wrk knows nothing of cached answers.

    Raises:
        LoadError: the generator failed.
    """
    with _file_of(bodies) as file:
        if generator == "built-in":
            return _built_in(port, file, timing, "--clients", str(clients))
        skip = int(timing.warm_up * MAX_PER_SECOND) if len(bodies) >= timing.bodies else 0
        if timing.warm_up:
            _wrk(port, file, 0, clients, timing.warm_up)
        return _wrk(port, file, skip, clients, timing.seconds)


def answered(
    port: int, bodies: Sequence[str], timing: Timing, clients: int = 1, rate: float | None = None
) -> tuple[dict[str, Any], list[tuple[str, int, bytes]]]:
    """Figures of a load by the built-in generator, and every answer: (body sent, status, body received); status 0
    where the connection ended without one.

    Args:
        clients: of a closed loop. rate: requests a second of an open loop instead.
    """
    with _file_of(bodies) as file:
        kept = file.with_suffix(".answers")
        load = ("--rate", str(rate)) if rate else ("--clients", str(clients))
        measured = _built_in(port, file, timing, *load, "--answers", str(kept))
        rows = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
        return measured, [(bodies[row["line"]], row["status"], row["body"].encode()) for row in rows]


def opened(
    port: int, bodies: Sequence[str], rate: float, timing: Timing, connections: int, deadline_s: float
) -> dict[str, Any]:
    """Figures of an open loop by the built-in generator.

    Args:
        rate: requests a second.
        connections: at the most.
        deadline_s: latency up to which an answer is in time.
    """
    with _file_of(bodies) as file:
        more = ("--rate", str(rate), "--connections", str(connections), "--deadline", str(deadline_s))
        return _built_in(port, file, timing, *more)


@contextmanager
def _file_of(bodies: Sequence[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="switchboard-load-") as folder:
        file = Path(folder) / "bodies"
        file.write_text("".join(f"{body}\n" for body in bodies), encoding="utf-8")
        yield file


def _built_in(port: int, file: Path, timing: Timing, *more: str) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "loadtests.load", "--port", str(port), "--bodies", str(file)),
        *("--seconds", str(timing.seconds), "--warm-up", str(timing.warm_up), *more),
    ]
    return _json_line(command)


def _wrk(port: int, file: Path, skip: int, clients: int, seconds: float) -> dict[str, Any]:
    command = [
        *("wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(HERE / "wrk.lua")),
        *(f"http://127.0.0.1:{port}", "--", str(file), str(skip)),
    ]
    return from_wrk(_json_line(command))


def from_wrk(line: dict[str, Any]) -> dict[str, Any]:
    """What wrk reports, with the names of the built-in generator."""
    good = line["requests"] - line["not_2xx"]
    return {
        "requests": line["requests"],
        "seconds": line["seconds"],
        "per_second": round(good / line["seconds"], 1),
        **{name: line[name] for name in ("p50_ms", "p90_ms", "p99_ms")},
        "cached": None,
        "failures": line["not_2xx"] + line["dropped"],
    }


def _json_line(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise LoadError(f"{' '.join(command[:3])} failed: {last[0]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
