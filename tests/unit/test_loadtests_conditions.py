"""What a saved run says about where it was measured."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from features.machine import processor
from loadtests.conditions import conditions, machine
from models.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("Name", "Request Count", "Failure Count", "Requests/s", "50%", "95%", "99%")


def test_the_conditions_name_machine_and_bundle(bundle: Bundle) -> None:
    told = conditions()
    assert told["bundle"] == bundle.version
    assert told["machine"].startswith(f"{processor()}, ")


def summary(stats: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "loadtests.summary", str(stats)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_of_locust_without_an_answer_is_told_as_such(tmp_path: Path) -> None:
    """As of a service that is slower than the run is long; Locust has no percentiles of it."""
    file = tmp_path / "run_stats.csv"
    with file.open("w", newline="") as stats:
        csv.writer(stats).writerows([COLUMNS, ("Aggregated", 0, 0, 0.0, "N/A", "N/A", "N/A")])
    done = summary(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no request was answered or failed in this time: give it more, or more users\n"


def test_a_run_of_locust_is_told_with_the_same_machine(tmp_path: Path) -> None:
    file = tmp_path / "run_stats.csv"
    with file.open("w", newline="") as stats:
        csv.writer(stats).writerows([COLUMNS, ("Aggregated", 10, 0, 2.04, 3, 4, 5)])
    done = summary(file)
    assert done.returncode == 0
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machine"] == machine()
    assert told["routes"]["Aggregated"]["per_second"] == 2.0
