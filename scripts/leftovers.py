"""What a killed service leaves behind: its folder for sockets, its HAProxy, and processes of its Ray."""

import contextlib
import json
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from run_lock import StateUnusable

if TYPE_CHECKING:
    from psutil import Process

MAX_TEMP = 8
"""How long the path of the folder for temporary files may be: HAProxy takes socket paths of up to 97 characters, most
of which go to the names, since these hold a node's id."""
_SCRATCH = "switchboard-"
"""How the names of folders for sockets begin; `mkdtemp` adds eight characters."""
_STOP_TIMEOUT_S = 5.0
_NOTE_EVERY_S = 0.2
_SAME_S = 1.0
"""How much two readings of one process's start time may differ, as they do after the clock was set."""


def temp_folder() -> str:
    """The folder for temporary files; /tmp where its path is too long for sockets."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= MAX_TEMP else "/tmp"


def scratch_folder(state: Path) -> Path:
    """A folder with a short path for HAProxy's sockets; ends what a killed predecessor left, and waits for it.

    Raises:
        StateUnusable: it, or the note of it in `state`, cannot be written.
    """
    note = state / "scratch"
    if note.is_file():
        clear(state, Path(note.read_text(errors="replace")))
    try:
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=temp_folder()))
    except OSError as error:
        raise StateUnusable(f"no folder can be made in {temp_folder()}: {error.strerror}") from None
    try:
        note.write_text(str(scratch))
    except OSError as error:
        scratch.rmdir()
        raise StateUnusable.since(state, error) from None
    return scratch


def clear(state: Path, scratch: Path) -> None:
    """End what a service has left, and remove its folder for sockets; a folder of another name is none of ours."""
    end_noted(state)
    end_haproxy(scratch)
    if _is_ours(scratch):
        shutil.rmtree(scratch, ignore_errors=True)


def note_children(state: Path) -> None:
    """Write down which processes this one and its children have started, for the next start to end them.

    Those that were written down before stay while they run: their parent may have ended. Where nothing can be written,
    as on a full disk, the next start has only what was written before.
    """
    import psutil

    noted = []
    for process in sorted({*_noted(state), *psutil.Process().children(recursive=True)}, key=lambda found: found.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            noted.append([process.pid, process.create_time()])
    note, draft = state / "processes", state / "processes.draft"
    text = json.dumps(noted)
    with contextlib.suppress(OSError):
        if not note.is_file() or note.read_text() != text:
            draft.write_text(text)
            draft.replace(note)


@contextlib.contextmanager
def noting_children(state: Path) -> Iterator[None]:
    """Note them again and again meanwhile: some outlive a node that fails while it starts, or is told to end then."""
    done = threading.Event()

    def note() -> None:
        while not done.wait(_NOTE_EVERY_S):
            note_children(state)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        note_children(state)


def end_noted(state: Path) -> None:
    """End what was written down and still runs. An id that another process has by now is left alone."""
    _end(_noted(state))


def _noted(state: Path) -> "list[Process]":
    import psutil

    try:
        noted = [(int(pid), float(started)) for pid, started in json.loads((state / "processes").read_text())]
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return []
    found = []
    for pid, started in noted:
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < _SAME_S:
                found.append(process)
    return found


def drain_haproxy(scratch: Path) -> None:
    """Close our HAProxy's port, and wait some seconds for the answers to what it has taken: Serve only kills it."""
    import psutil

    running = _haproxy(scratch)
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGUSR1)
    psutil.wait_procs(running, timeout=_STOP_TIMEOUT_S)


def end_haproxy(scratch: Path) -> None:
    """End HAProxy processes that run on a configuration of ours and outlived Ray."""
    _end(_haproxy(scratch))


def _is_ours(scratch: Path) -> bool:
    return re.fullmatch(_SCRATCH + "[a-z0-9_]{8}", scratch.name) is not None


def _haproxy(scratch: Path) -> "list[Process]":
    import psutil

    if not _is_ours(scratch):
        return []
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(scratch) in argument for argument in process.info["cmdline"] or ())
    ]


def _end(processes: "list[Process]") -> None:
    """Ask processes to end, and kill those that have not after some seconds."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=_STOP_TIMEOUT_S)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
