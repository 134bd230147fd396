"""How `scripts/compare` ends: by a signal at any moment, and where nothing can be saved."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
RUNS = """if True:
    import pathlib, signal, sys
    from loadtests.commands import _end_in_order
    from loadtests.targets import reflector, running
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
    _end_in_order()
    with running(reflector(), "", pathlib.Path(sys.argv[1])) as service:
        print(service.process.pid, flush=True)
        signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_ends_the_service_and_more_do_not_disturb_that(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, tmp_path],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        service = psutil.Process(int(process.stdout.readline()))
        service.suspend()  # it ends only once it may go on
        process.send_signal(number)
        assert process.stderr.readline() == "error: interrupted; ending what was started\n"
        process.send_signal(signal.SIGINT)
        service.resume()
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (128 + number, "")
    assert not service.is_running()


def test_a_folder_in_which_nothing_can_be_saved_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", "--out", tmp_path / "file"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --out {tmp_path}/file: File exists\n"
