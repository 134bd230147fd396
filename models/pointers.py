"""What a name such as `production` is: a small JSON file beside the bundles, `{"version": …, "history": […]}`."""

import json
import re

from pydantic import BaseModel, ValidationError

from models.bundle import BundleError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
HISTORY = 20


class Pointer(BaseModel):
    """Where a name points, and where it pointed before, oldest first."""

    version: str | None
    history: tuple[str, ...]

    def moved(self, version: str) -> "Pointer":
        """The pointer after it was pointed at another version; the oldest of a long history is forgotten."""
        return Pointer(version=version, history=tuple(v for v in (*self.history, self.version) if v)[-HISTORY:])

    def encoded(self) -> bytes:
        """The content of its file."""
        return (json.dumps(self.model_dump()) + "\n").encode()


NOWHERE = Pointer(version=None, history=())


def parse_pointer(content: bytes, where: str) -> Pointer:
    """The pointer in a file.

    Raises:
        BundleError: it is damaged; the message begins with where it comes from.
    """
    try:
        return Pointer.model_validate_json(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BundleError(f"{where}: damaged: {reason}; move it away and promote a version again") from None


def may_be_pointer(content: bytes) -> bool:
    """Whether a file is a pointer, be it a damaged one, and not some object of the user's, such as training data."""
    try:
        known = json.loads(content)
    except (ValueError, RecursionError):
        return True
    return not isinstance(known, dict) or bool(Pointer.model_fields.keys() & known.keys())
