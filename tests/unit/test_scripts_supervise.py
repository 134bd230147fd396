"""What the service's process sees to before it starts anything."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def told(code: str, ignored: signal.Signals | None = None) -> str:
    """What a process of its own prints, in which one signal is ignored from the beginning, and no other."""

    def settle() -> None:
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SCRIPTS,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        preexec_fn=settle,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_modules_are_those_of_the_checkout_whatever_is_installed(tmp_path: Path) -> None:
    """An environment that came with a copied or moved checkout knows the folder in which it was made."""
    (tmp_path / "features.py").touch()
    code = """if True:
        import pathlib, subprocess, sys, supervise
        supervise.import_from(pathlib.Path(sys.argv[1]))
        asked = "import features; print(features.__file__)"
        exec(asked)
        subprocess.run([sys.executable, "-c", asked], cwd="/")
    """
    lines = told(code.replace("sys.argv[1]", repr(str(tmp_path)))).splitlines()
    assert lines == [str(tmp_path / "features.py")] * 2


@pytest.mark.parametrize(
    ("sent", "ignored", "stops"),
    [
        (signal.SIGHUP, None, True),
        (signal.SIGHUP, signal.SIGHUP, False),
        (signal.SIGINT, signal.SIGINT, True),  # as in a shell script's background
    ],
)
def test_a_closed_terminal_stops_it_unless_nohup_says_otherwise(
    sent: signal.Signals, ignored: signal.Signals | None, stops: bool
) -> None:
    caught = "import os, supervise; supervise._catch_signals()"
    assert told(f"{caught}; os.kill(os.getpid(), {sent}); print(supervise._stop.is_set())", ignored) == str(stops)


def test_a_redis_on_another_port_is_told_to_those_who_run_commands(tmp_path: Path) -> None:
    """`python -m features` would take the one on the usual port, which is that of another service."""
    code = f"""if True:
        import contextlib, os, pathlib, socket, supervise
        os.environ.pop("REDIS_URL", None)
        other = socket.socket()
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", 6380))
        with supervise._redis(pathlib.Path({str(tmp_path)!r})) as url:
            print(url)
    """
    notice, url = told(code).splitlines()
    assert notice.endswith(f"give python -m features the option --redis-url {url}")
