"""How the service ends."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from ports import free_port

from tests.serve.conftest import command, wait_until_ready
from tests.serve.polling import until


@contextmanager
def started(state: Path) -> Iterator[tuple["subprocess.Popen[str]", set[str]]]:
    """A service that is ready, in a process group of its own, and what its processes' command lines hold."""
    with subprocess.Popen(
        command(state, free_port()),
        env=os.environ | {"REDIS_URL": ""},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        wait_until_ready(process)
        yield process, {str(state), (state / "scratch").read_text()}


def test_a_signal_to_the_whole_process_group(tmp_path: Path) -> None:
    """As systemd and `timeout` send it: Ray's node ends at once, and Serve need not be waited for."""
    with started(tmp_path) as (process, traces):
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "[switchboard] stopped"
    assert "failed to shut down" not in output
    until(lambda: left_behind(traces), lambda left: not left)


def test_a_node_that_is_lost_ends_the_service(tmp_path: Path) -> None:
    """Without its raylet nothing is started again, and answers would stop one by one."""
    with started(tmp_path) as (process, traces):
        (raylet,) = (child for child in psutil.Process(process.pid).children() if child.name() == "raylet")
        raylet.kill()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in output
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "lost raylet" in error
    until(lambda: left_behind(traces), lambda left: not left)


def left_behind(traces: set[str]) -> list[str]:
    """The command lines of running processes that hold one of the traces."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(trace in line for trace in traces)]
