"""The replica's end of a link: a stage behind a Unix socket, for callers on the same node."""

import asyncio
import os
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deployments.frames import CALL, CLOSING, ERROR, RESULT, FrameProtocol, dumps, dumps_error, require_own

MAX_PATH = 107
"""Bytes that the address of a Unix socket holds on Linux."""
Call = Callable[[Any], Awaitable[Any]]


class LinkServer:
    """Answers calls on a socket until it is closed.

    Args:
        call: the stage.
        path: of the socket; its folder is made for this user alone, since whoever may connect may send any object.
    """

    def __init__(self, call: Call, path: Path) -> None:
        self.call, self._path = call, path
        self.peers: set[_Peer] = set()
        self._server: asyncio.AbstractServer | None = None

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the path is too long for a socket, cannot be written, or its folder is open to others.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own(self._path.parent)
        if len(os.fsencode(self._path)) > MAX_PATH:
            raise OSError(f"AF_UNIX path too long: {self._path}")
        draft = self._path.with_suffix(".new")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Peer(self), str(draft))
        draft.rename(self._path)  # only now: whoever finds a socket that nobody listens on deletes it

    def close(self) -> None:
        """Stop listening and ask callers to send no more; calls under way are still answered."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            self._server = None
        for peer in [*self.peers]:
            peer.leave()


class _Peer(FrameProtocol):
    """One connected caller."""

    def __init__(self, server: LinkServer) -> None:
        super().__init__()
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.peers.add(self)
        if not self._server.listening:  # any more: it was closed while this was being accepted
            self.leave()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.peers.discard(self)

    def received(self, call: int, kind: int, payload: bytes) -> None:
        if kind == CALL:
            task = asyncio.get_running_loop().create_task(self._answer(call, payload))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def leave(self) -> None:
        """Ask for no more calls, and hang up when those under way are answered."""
        self._leaving = True
        self.send(0, CLOSING, b"")
        self._hang_up_if_idle()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._hang_up_if_idle()

    def _hang_up_if_idle(self) -> None:
        if self._leaving and not self._tasks and self.transport is not None:
            self.transport.close()

    async def _answer(self, call: int, payload: bytes) -> None:
        try:
            result = dumps(await self._server.call(pickle.loads(payload)))
        except asyncio.CancelledError:
            self.send(call, ERROR, dumps(RuntimeError("the call was cancelled")))
            raise
        except Exception as error:
            self.send(call, ERROR, dumps_error(error))
        else:
            self.send(call, RESULT, result)
