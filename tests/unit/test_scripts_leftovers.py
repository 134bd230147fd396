"""What a killed service leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from leftovers import end_haproxy, end_noted, note_children, scratch_folder

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    """A process that is not ended by being asked to."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def noted(child: "subprocess.Popen[str]") -> list[float]:
    return [child.pid, psutil.Process(child.pid).create_time()]


def test_children_are_noted(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    """Not ended here: the tests' Redis is a child of the same process."""
    note_children(tmp_path)
    assert noted(child) in json.loads((tmp_path / "processes").read_text())


def test_what_was_noted_stays_noted_when_its_parent_has_ended(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    """Noted by a process that it is no child of."""
    (tmp_path / "processes").write_text(json.dumps([noted(child), [child.pid, 1.0]]))
    note = "import sys; from pathlib import Path; from leftovers import note_children; note_children(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", note, str(tmp_path)], cwd=SCRIPTS, check=True)
    assert json.loads((tmp_path / "processes").read_text()) == [noted(child)]


def test_a_note_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    note_children(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_the_next_start_ends_what_is_left_and_waits_for_it(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    (tmp_path / "processes").write_text(json.dumps([noted(child)]))
    (tmp_path / "scratch").write_text(str(tmp_path / "gone"))
    scratch = scratch_folder(tmp_path)
    assert not psutil.pid_exists(child.pid)
    scratch.rmdir()


@pytest.mark.parametrize("note", [b"%b", b"%b/", b"%b\xff\x00"])
def test_a_note_that_names_no_folder_of_ours_removes_nothing(tmp_path: Path, note: bytes) -> None:
    """As where `--state` is a folder in which another program has a file of that name."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "scratch").write_bytes(note % bytes(kept))
    scratch_folder(tmp_path).rmdir()
    assert (kept / "file").exists()


def test_the_folder_of_a_killed_service_is_removed(tmp_path: Path) -> None:
    left = scratch_folder(tmp_path)
    (left / "haproxy.cfg").touch()
    scratch_folder(tmp_path).rmdir()
    assert not left.exists()


@pytest.mark.parametrize(
    "note", ["", "{", "3", "[3]", '[["a", 1]]', '{"a": 1}', "[[null, null]]", "[[-1, 1]]", "[[1e999, 1]]", "[" * 9999]
)
def test_a_note_of_another_kind_ends_nothing(tmp_path: Path, note: str) -> None:
    (tmp_path / "processes").write_text(note)
    end_noted(tmp_path)


def test_another_process_of_the_same_id_goes_on(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    (tmp_path / "processes").write_text(json.dumps([[child.pid, noted(child)[1] - 5]]))
    end_noted(tmp_path)
    assert child.poll() is None


@pytest.mark.parametrize("note", [None, "", "[[1"])
def test_without_a_note_nothing_is_ended(tmp_path: Path, note: str | None) -> None:
    if note is not None:
        (tmp_path / "processes").write_text(note)
    end_noted(tmp_path)


def test_an_haproxy_that_is_left_has_ended_when_it_was_told_to(tmp_path: Path) -> None:
    scratch = tmp_path / "switchboard-12345678"
    with subprocess.Popen([sys.executable, "-c", "input()", str(scratch)], stdin=subprocess.PIPE) as process:
        end_haproxy(scratch)
        assert not psutil.pid_exists(process.pid)


def test_sockets_have_a_short_path(tmp_path: Path) -> None:
    """`tempfile` asks only once in a process."""
    code = "from leftovers import temp_folder; print(temp_folder())"
    for given, taken in (("/var/tmp", "/var/tmp"), (str(tmp_path), "/tmp")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=SCRIPTS,
            env=os.environ | {"TMPDIR": given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == taken
