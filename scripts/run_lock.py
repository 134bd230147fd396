"""One service per checkout."""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class AlreadyRunning(RuntimeError):
    """Another process serves from this checkout."""


class StateUnusable(RuntimeError):
    """Why nothing can be kept in the folder, in one sentence."""

    @classmethod
    def since(cls, folder: Path, error: OSError) -> "StateUnusable":
        return cls(f"--state {folder} is not usable: {error.strerror}")


class RunLock:
    """A lock on `folder/lock` that the system frees when its holder ends, however it ends; makes the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "lock"

    def __enter__(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+")
        except OSError as error:
            raise StateUnusable.since(self._folder, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._file:
                self._file.seek(0)
                pid = self._file.read().strip()
            raise AlreadyRunning(f"the service already runs from this folder, as process {pid}") from None
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            raise StateUnusable.since(self._folder, error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()  # the file stays: who has opened it already would lock one that nobody else finds
