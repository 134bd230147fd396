"""Atomic file replacement: readers see the old file or the complete new one."""

import errno
import glob
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_S = 86_400
"""Age of a draft whose writer must have been killed."""
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_HEX_DIGITS = "[0-9a-f]" * 32
"""Pattern of a draft's suffix; hidden files of other programs, such as an editor's, have other suffixes."""


def require_replaceable(target: Path) -> None:
    """Raise OSError if the target exists and is not a regular file: a folder or a pipe, for example."""
    if target.exists() and not target.is_file():
        raise OSError(f"{target}: exists and is not a regular file")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A draft in the target's folder, renamed to the target on success and deleted on failure.

    Drafts that killed writers of the same target left there are deleted, too.

    Raises:
        OSError: the target exists and is not a regular file, is a symbolic link that leads back to itself, or cannot be
            written; a full disk's error names the target, too.
    """
    require_replaceable(target)
    try:
        target = target.resolve()
    except RuntimeError as error:
        raise OSError(f"{target}: {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.{_HEX_DIGITS}"):
        with suppress(OSError):
            if is_abandoned(left):
                left.unlink()
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(target)
    except OSError as error:
        if error.errno in _OF_THE_DISK and error.filename is None:
            error.filename = str(target)
        raise
    finally:
        draft.unlink(missing_ok=True)


def is_abandoned(draft: Path) -> bool:
    """Whether a draft is so old that its writer must have been killed."""
    return time.time() - draft.stat().st_mtime > ABANDONED_S
