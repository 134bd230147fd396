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


def test_a_run_of_locust_is_told_with_the_same_machine(tmp_path: Path) -> None:
    file = tmp_path / "run_stats.csv"
    with file.open("w", newline="") as stats:
        csv.writer(stats).writerows([COLUMNS, ("Aggregated", 10, 0, 2.04, 3, 4, 5)])
    command = [sys.executable, "-m", "loadtests.summary", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machine"] == machine()
    assert told["routes"]["Aggregated"]["per_second"] == 2.0
