"""What is said when nobody listens any more, or not everything can be shown."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_a_closed_terminal_ends_nothing() -> None:
    """Neither the first line that nobody reads nor the end of the process fails."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from terminal import say; say('one'); say('two', prefix=''); import sys; print('done', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "done\n")


def test_a_terminal_without_some_characters_ends_nothing() -> None:
    code = "from terminal import accept_any_encoding, say; accept_any_encoding(); say('starting…')"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[switchboard] starting?\n"
