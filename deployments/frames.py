"""Frames on a byte stream: length, number of the call, kind, and a pickled object."""

import asyncio
import os
import pickle
import struct
from pathlib import Path
from typing import Any, cast

_HEAD = struct.Struct("<IQB")
CALL, RESULT, ERROR, CLOSING = range(4)
"""A batch to a stage; what came of it; what it raised; and that no more calls should be sent."""


class FrameProtocol(asyncio.Protocol):
    """Cuts what arrives into frames and gives each to `received`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # not an instance of it where uvloop runs

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEAD.size:
            length, call, kind = _HEAD.unpack_from(self._buffer, start)
            begin, end = start + _HEAD.size, start + _HEAD.size + length
            if len(self._buffer) < end:
                break
            self.received(call, kind, bytes(self._buffer[begin:end]))
            start = end
        del self._buffer[:start]

    def received(self, call: int, kind: int, payload: bytes) -> None:
        """One whole frame has arrived."""
        raise NotImplementedError

    def send(self, call: int, kind: int, payload: bytes) -> None:
        """Write one frame; nothing happens once the connection is gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(_HEAD.pack(len(payload), call, kind) + payload)


def dumps(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def dumps_error(error: Exception) -> bytes:
    """An exception as it is, or, if it does not survive pickling, its words."""
    try:
        payload = dumps(error)
        pickle.loads(payload)
    except Exception:
        return dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return payload


def require_own(folder: Path) -> None:
    """Make sure that nobody else can put sockets into a folder: what comes out of them is unpickled.

    Raises:
        PermissionError: it belongs to another user, or others may write into it.
    """
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user or is open to others")
