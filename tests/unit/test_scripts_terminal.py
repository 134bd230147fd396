"""What is said when nobody listens any more."""

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
