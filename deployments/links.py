"""The caller's end of a link: batches to replicas on the same node over Unix sockets, past Ray's router.

A call through a deployment handle costs some milliseconds of processor time, spent in Ray; the same batch on a socket
costs a third of that (docs/log.md). Links only save time: a batch goes through the handle where the replicas are on
other nodes, are all busy, or have gone. A stage has no side effects, so a call whose replica died is made again.
"""

import asyncio
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from deployments.detached import detached
from deployments.frames import CALL, CLOSING, RESULT, FrameProtocol, dumps, require_own

logger = logging.getLogger(__name__)
REFRESH_S = 1.0
"""How old the list of sockets may be."""
STALL_S = 2.0
"""A replica that owes answers and has given none for so long hangs: it gets no more calls until it gives one."""
RESTART_S = 15.0
"""How long Ray is expected to need for a new replica; after that, its router may know of one on another node."""
MAX_CALLS = 2
"""Calls under way on one link, from one caller; the next goes through the handle, which knows all replicas."""


class LinkLost(ConnectionError):
    """The replica has gone before it answered."""


def socket_name(app: str, deployment: str, replica: str = "*") -> str:
    """The file of a replica's socket, or the pattern for all of a deployment; short, as socket paths must be."""
    return f"{sha256(f'{app}#{deployment}'.encode()).hexdigest()[:12]}.{replica}.sock"


class Links:
    """Connections to the replicas of one deployment on this node.

    Args:
        folder: where replicas put their sockets.
        pattern: of the files' names, see `socket_name`.
        prefer: which of several idle replicas gets a batch: always the same, whose memory is still in the processor's
            caches. Callers that do not know of each other should prefer different ones.
    """

    def __init__(
        self,
        folder: Path,
        pattern: str,
        refresh_s: float = REFRESH_S,
        max_calls: int = MAX_CALLS,
        prefer: Literal["first", "last"] = "first",
        restart_s: float = RESTART_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._folder, self._pattern = folder, pattern
        self._refresh_s, self._max_calls = refresh_s, max_calls
        self._prefer, self._restart_s, self._stall_s = prefer, restart_s, stall_s
        self._links: dict[Path, Link] = {}
        self._due = 0.0
        self._crashed_at = -math.inf
        self._death_watchers: set[asyncio.Future[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None

    def pick(self) -> "Link | None":
        """The least busy link, if there is one that is not too busy. Looks for new sockets beside the call."""
        if self._refreshing is None and time.monotonic() >= self._due:
            self._refreshing = detached(self._refresh_and_note())
        links = self._links.values() if self._prefer == "first" else reversed(self._links.values())
        fit = (link for link in links if link.open and link.silent_s < self._stall_s)
        best = min(fit, key=lambda link: link.calls, default=None)
        return best if best is not None and best.calls < self._max_calls else None

    @property
    def gone(self) -> bool:
        """Whether no replica on this node can be called."""
        return not any(link.open for link in self._links.values())

    @property
    def down(self) -> bool:
        """Whether all replicas hang, or the last one has died a moment ago: Ray is starting another one."""
        if self.gone:
            return time.monotonic() - self._crashed_at < self._restart_s
        return all(link.silent_s >= self._stall_s for link in self._links.values() if link.open)

    @contextmanager
    def watching_for_death(self) -> Iterator["asyncio.Future[None]"]:
        """A future that is done when the last replica on this node dies."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._death_watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._death_watchers.discard(watcher)

    async def refresh(self) -> None:
        """Connect to sockets that are new, forget links that are lost, delete sockets that nobody listens on.

        Raises:
            PermissionError: others may put sockets there.
        """
        if not self._folder.is_dir():
            return
        require_own(self._folder)
        self._links = {path: link for path, link in self._links.items() if link.open}
        for path in sorted(self._folder.glob(self._pattern)):
            if path in self._links:
                continue
            try:
                _, link = await asyncio.get_running_loop().create_unix_connection(self._link, str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
            else:
                self._links[path] = link
        self._links = dict(sorted(self._links.items()))  # first and last are the same for all callers

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def _link(self) -> "Link":
        return Link(self._note_crash)

    def _note_crash(self) -> None:
        self._crashed_at = time.monotonic()
        for watcher in self._death_watchers if self.down else ():
            if not watcher.done():
                watcher.set_result(None)

    async def _refresh_and_note(self) -> None:
        try:
            await self.refresh()
        except OSError as error:
            logger.warning("no links: %s", error)
        finally:
            self._refreshing, self._due = None, time.monotonic() + self._refresh_s


class Link(FrameProtocol):
    """A connection to one replica; `crashed` is called when that goes without saying so."""

    def __init__(self, crashed: Callable[[], None]) -> None:
        super().__init__()
        self.open = True
        self._crashed = crashed
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._owed = 0
        self._heard = 0.0

    @property
    def calls(self) -> int:
        """Calls under way."""
        return len(self._waiting)

    @property
    def silent_s(self) -> float:
        """How long the replica has owed an answer, also to a caller who no longer waits, and given none."""
        return time.monotonic() - self._heard if self._owed else 0.0

    async def call(self, batch: Any) -> Any:
        """The stage's answer.

        Raises:
            LinkLost: the replica has gone; the call may be made again elsewhere.
            Exception: what the stage raised.
        """
        if not self.open:
            raise LinkLost
        self._next += 1
        number = self._next
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(number, CALL, dumps(batch))
            if not self._owed:
                self._heard = time.monotonic()
            self._owed += 1
            return await future
        finally:
            self._waiting.pop(number, None)

    def received(self, call: int, kind: int, payload: bytes) -> None:
        if kind == CLOSING:
            self.open = False  # Ray's router knows who takes its place
            return
        self._owed, self._heard = max(0, self._owed - 1), time.monotonic()
        future = self._waiting.get(call)
        if future is None or future.done():
            return
        value = pickle.loads(payload)
        if kind == RESULT:
            future.set_result(value)
        else:
            future.set_exception(value)

    def connection_lost(self, error: Exception | None) -> None:
        crashed, self.open = self.open, False
        if crashed:
            self._crashed()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkLost("the replica has gone"))

    def close(self) -> None:
        self.open = False
        if self.transport is not None:
            self.transport.close()
