"""The shell scripts, with programs in place of what they start."""

import os
import shutil
import subprocess
from pathlib import Path

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
    program(checkout / ".venv" / "bin" / "python", "exit 1")
    if made:
        (checkout / ".venv" / "pyvenv.cfg").touch()
    program(checkout / "bin" / "python3.11", '[ "$1" = -c ] && exit 0; echo "$*"; exit 7')
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "scripts/setup", "serve"],
        cwd=checkout,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, f"{options}\n")


def test_a_load_test_takes_an_address_with_a_slash_and_no_proxy(checkout: Path) -> None:
    program(checkout / "scripts" / "setup", "exit 0")
    program(checkout / ".venv" / "bin" / "python", 'echo "${@: -1} $no_proxy"; exit 1')
    done = subprocess.run(
        ["bash", "scripts/loadtest", "http://127.0.0.1:1/"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.stdout == "http://127.0.0.1:1 *\n"
    assert done.stderr == "error: http://127.0.0.1:1 is not ready: start it with scripts/serve\n"
