"""Options of `scripts/compare`: those out of range and those without an effect are refused, and named."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.compare import order
from loadtests.options import parse
from loadtests.targets import all_targets

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ([], 5),
        (["--quick"], 1),
        (["--sweep"], 5),
        (["--sweep", "--quick"], 1),
        (["--ramp"], 60),
        (["--capacity"], 15),
        (["--overload"], 10),
        (["--capacity", "--seconds", "1.5"], 1.5),
        (["--report"], None),
    ],
)
def test_each_mode_has_its_seconds(options: list[str], seconds: float | None) -> None:
    assert parse(options).seconds == seconds


def test_a_comparison_is_the_default() -> None:
    arguments = parse(["--only", "graph", "--rounds", "2"])
    assert (arguments.mode, arguments.only, arguments.rounds) == ("compare", ["graph"], 2)
    assert (arguments.generator, arguments.classifiers, arguments.quick, arguments.out) == ("auto", 2, False, None)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--sweep", "--rounds", "2", "--only", "graph"], "without effect with --sweep: --only, --rounds"),
        (["--sweep", "--core-hour", "1"], "without effect with --sweep: --core-hour"),
        (["--ramp", "--quick", "--generator", "auto"], "without effect with --ramp: --generator, --quick"),
        (["--capacity", "--classifiers", "3"], "without effect with --capacity: --classifiers"),
        (["--report", "--seconds", "3"], "without effect with --report: --seconds"),
        (["--core-hour", "1"], "without effect in a comparison: --core-hour"),
        (["--quick", "--rounds", "1"], "without effect with --quick: --rounds"),
        (["--sweep", "--quick", "--generator", "wrk"], "without effect with --quick: --generator"),
        (["--sweep", "--ramp"], "argument --ramp: not allowed with argument --sweep"),
        (["--rounds", "0"], "argument --rounds: '0' is no whole number of at least 1"),
        (["--classifiers", "-1"], "argument --classifiers: '-1' is no whole number of at least 1"),
        (["--seconds", "0"], "argument --seconds: '0' is no number above 0"),
        (["--seconds", "nan"], "argument --seconds: 'nan' is no number above 0"),
        (["--capacity", "--core-hour", "free"], "argument --core-hour: 'free' is no number above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"scripts/compare: error: {complaint}"


def test_the_help_names_the_seconds_of_each_mode(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(wrk: whole; 5, 1 with --quick, 60 with --ramp, 15 with --capacity, 10 with --overload)" in shown


@pytest.mark.parametrize(("number", "first"), [(0, "fastapi"), (1, "graph"), (2, "graph_lean")])
def test_each_round_begins_with_another_service(number: int, first: str) -> None:
    targets = all_targets()
    names = [target.name for target in order(targets, number, rounds=3)]
    assert names[0] == first
    assert sorted(names) == sorted(target.name for target in targets)


def test_without_the_modules_of_scripts_the_right_command_is_named() -> None:
    command = [sys.executable, "-m", "loadtests", "--help"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run scripts/compare, which sets up what the load tests need\n"
