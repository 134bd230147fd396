"""A command that is told to end says so in one line and leaves nothing half-written."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def running() -> Iterator["subprocess.Popen[str]"]:
    """`models bench`, which has begun and would take hours."""
    command = [sys.executable, "-m", "models", "bench", "--rounds", "1000000"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            while process.poll() is None and "bench cpu" not in process.stderr.readline():
                pass
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_a_command_says_so_in_one_line(running: "subprocess.Popen[str]", number: signal.Signals) -> None:
    running.send_signal(number)
    figures, errors = running.communicate(timeout=120)
    assert (running.returncode, errors.splitlines()[-1], figures) == (130, "error: interrupted", "")
    assert "Traceback" not in errors
