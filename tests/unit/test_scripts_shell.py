"""The shell scripts, with programs in place of what they start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[2]


def program(file: Path, text: str) -> None:
    """A shell script in place of another program."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts in which an environment tells with what it was started."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    for name in ("serve", "loadtest", "setup", "test"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    return folder


def set_up(checkout: Path, user: int | None = None) -> "subprocess.CompletedProcess[str]":
    """What `scripts/setup serve` does with the programs in `bin`."""
    return subprocess.run(
        ["bash", "scripts/setup", "serve"],
        cwd=checkout,
        env={"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"},
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("venv", [None, "elsewhere"])
def test_serve_starts_by_a_link_in_the_folder_of_its_caller(tmp_path: Path, checkout: Path, venv: str | None) -> None:
    program(checkout / "scripts" / "setup", "exit 0")
    program(checkout / (venv or ".venv") / "bin" / "python", 'echo "$PWD $*"')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "switchboard").symlink_to(checkout / "scripts" / "serve")
    environment = {name: value for name, value in os.environ.items() if name != "VENV"} | (
        {"VENV": venv} if venv else {}
    )
    done = subprocess.run(
        [tmp_path / "bin" / "switchboard", "--state", "here"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{tmp_path} {checkout}/scripts/supervise.py --state here\n"


@pytest.mark.parametrize(("made", "options"), [(True, "-m venv --clear .venv"), (False, "-m venv .venv")])
def test_a_half_made_environment_is_made_anew(checkout: Path, made: bool, options: str) -> None:
    """It has a Python and no pip; a folder that is no environment is not cleared."""
    (checkout / "requirements").mkdir()
    (checkout / "requirements" / "serve.txt").touch()
    (checkout / "pyproject.toml").touch()
    program(checkout / ".venv" / "bin" / "python", "exit 1")
    if made:
        (checkout / ".venv" / "pyvenv.cfg").touch()
    program(checkout / "bin" / "python3.11", '[ "$1" = -c ] && exit 0; echo "$*"; exit 7')
    done = set_up(checkout)
    assert (done.returncode, done.stdout) == (7, f"{options}\n")


def test_of_two_setups_at_once_one_waits_for_the_other(checkout: Path) -> None:
    """And then finds everything done. The programs in place of Python tell of their steps by pipes."""
    (checkout / "requirements").mkdir()
    (checkout / "requirements" / "serve.txt").write_text("one\n")
    (checkout / "pyproject.toml").touch()
    for pipe in ("making", "locking", "go on"):
        os.mkfifo(checkout / pipe)
    made = "mkdir -p .venv/bin; printf '#!/bin/bash\\nexit 0\\n' >.venv/bin/python; chmod +x .venv/bin/python"
    locks = f'[[ $2 != *flock* ]] || {{ [ "$NAME" = first ] || echo >locking; exec "{sys.executable}" "$@"; }}'
    program(
        checkout / "bin" / "python3.11",
        f'if [ "$1" = -c ]; then {locks}; exit 0; fi; echo "$NAME" >>made; echo >making; read <"go on"; {made}',
    )
    environment = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", "scripts/setup", "serve"]
    with subprocess.Popen(command, cwd=checkout, env=environment | {"NAME": "first"}) as first:
        (checkout / "making").read_text()
        with subprocess.Popen(command, cwd=checkout, env=environment | {"NAME": "second"}) as second:
            (checkout / "locking").read_text()
            (checkout / "go on").write_text("\n")
            assert (first.wait(), second.wait()) == (0, 0)
    assert (checkout / "made").read_text() == "first\n"


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    """As after an upgrade of the system, though its stamp says that everything is installed."""
    (checkout / "requirements").mkdir()
    for file in ("requirements/serve.txt", ".venv/.installed-serve", ".venv/pyvenv.cfg", "pyproject.toml"):
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).touch()
    (checkout / ".venv" / "bin").mkdir()
    (checkout / ".venv" / "bin" / "python").symlink_to(checkout / "gone")
    program(checkout / "bin" / "python3.11", '[ "$1" = -c ] && exit 0; echo "$*"; exit 7')
    done = set_up(checkout)
    assert (done.returncode, done.stdout) == (7, "-m venv --clear .venv\n")


def test_a_checkout_of_somebody_else_is_told_as_that(checkout: Path) -> None:
    with TemporaryDirectory() as folder:
        theirs = Path(shutil.copytree(checkout, Path(folder) / "theirs"))
        (theirs / "requirements").mkdir()
        (theirs / "requirements" / "serve.txt").touch()
        program(theirs / "bin" / "python3.11", "exit 0")
        for path in (Path(folder), theirs, *theirs.rglob("*")):
            path.chmod(0o755 if path == Path(folder) else 0o555)
        done = set_up(theirs, user=65_534 if os.geteuid() == 0 else None)
        for path in (theirs, *theirs.rglob("*")):
            path.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {theirs} is not writable: have its owner run scripts/setup serve\n"


@pytest.mark.parametrize("name", ["--help", "everything"])
def test_a_set_that_is_not_there_makes_nothing(checkout: Path, name: str) -> None:
    done = subprocess.run(["bash", "scripts/setup", name], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: no set {name}; usage: scripts/setup serve|gpu|batch|dev\n"
    assert not (checkout / ".venv").exists()


def test_a_load_test_tells_what_it_takes(checkout: Path) -> None:
    done = subprocess.run(
        ["bash", "scripts/loadtest", "--help"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Usage: scripts/loadtest [address]" in done.stdout) == (0, True)


def test_a_load_test_takes_an_address_with_a_slash_and_no_proxy(checkout: Path) -> None:
    program(checkout / "scripts" / "setup", "exit 0")
    program(checkout / ".venv" / "bin" / "python", 'echo "${@: -1} $no_proxy"; exit 1')
    done = subprocess.run(
        ["bash", "scripts/loadtest", "http://127.0.0.1:1/"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.stdout == "http://127.0.0.1:1 *\n"
    assert done.stderr == "error: http://127.0.0.1:1 is not ready: start it with scripts/serve\n"
