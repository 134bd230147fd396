"""Files that are there as a whole or not at all."""

import glob
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_S = 86_400
"""Age of a draft whose writer must have been killed."""


def require_replaceable(target: Path) -> None:
    """Raise OSError if the target is there and no file, such as a pipe."""
    if target.exists() and not target.is_file():
        raise OSError(f"{target}: is there already, and no regular file")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A draft beside the target that takes its place when it is complete; drafts of killed writers go.

    Raises:
        OSError: the target is there and no file, such as a pipe, or a link that leads to itself.
    """
    require_replaceable(target)
    try:
        target = target.resolve()
    except RuntimeError as error:
        raise OSError(f"{target}: {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        _forget(left)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def is_abandoned(draft: Path) -> bool:
    """Whether a draft is so old that its writer must have been killed."""
    return time.time() - draft.stat().st_mtime > ABANDONED_S


def _forget(draft: Path) -> None:
    try:
        if is_abandoned(draft):
            draft.unlink()
    except OSError:
        return
