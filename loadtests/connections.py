"""HTTP/1.1 connections for a load generator: kept alive, on one selector, a few microseconds of CPU a request."""

import select
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_CACHED = b'"cached":true'


@dataclass(slots=True)
class Tally:
    """What came of the requests that were due within the measured time."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of the answers with status 200."""
    statuses: Counter[int] = field(default_factory=Counter)
    cached: int = 0
    """Answers that say that their text was cached."""
    dropped: int = 0
    """Requests whose connection ended before the answer was there."""
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Index of the request, status and body, where answers are kept; those of the warm-up, too. A request whose
    connection ended has status 0 and no body."""
    seconds: float = 0.0
    """The measured time: shorter than asked for when the requests ran out."""


class Connection:
    """One kept-alive connection, with at most one request on its way."""

    __slots__ = ("buffer", "due", "index", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.due, self.index = 0.0, -1


class Connections:
    """Sends requests in order, each once, and tallies what comes back.

    Args:
        address: host and port.
        requests: complete HTTP requests.
        begin, end: clock times between which a request must be due to count.
        keep: whether to keep the answers.
    """

    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], begin: float, end: float, keep: bool = False
    ) -> None:
        self.tally = Tally()
        self.idle: deque[Connection] = deque()
        self.busy = 0
        self._address, self._requests, self._keep = address, requests, keep
        self._begin, self._end = begin, end
        self._next = 0
        self._selector = selectors.DefaultSelector()

    def __len__(self) -> int:
        return len(self._selector.get_map())

    @property
    def exhausted(self) -> bool:
        """Whether every request was sent."""
        return self._next == len(self._requests)

    def open(self) -> Connection:
        """A new connection.

        Raises:
            OSError: nobody listens.
        """
        connection = Connection(self._address)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def send(self, connection: Connection, due: float) -> None:
        """Send the next request; its latency counts from `due`."""
        connection.due, connection.index = due, self._next
        self._next += 1
        self.busy += 1
        try:
            connection.socket.sendall(self._requests[connection.index])
        except OSError:
            self._drop(connection)

    def receive(self, until: float) -> list[Connection]:
        """Wait for answers, at most until a clock time; returns the connections that now have nothing to do.

        A connection that its server ended while a request was on its way is replaced by a new one.
        """
        wait = max(0.0, until - time.perf_counter())
        # select waits to the microsecond; epoll itself, to the millisecond.
        if not select.select([self._selector], [], [], wait)[0]:
            return []
        free = []
        for key, _ in self._selector.select(0):
            connection: Connection = key.data
            try:
                data = connection.socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                if self._drop(connection):
                    free.append(self.open())
            elif self._take(connection, data):
                free.append(connection)
        return free

    def close(self) -> Tally:
        """End all connections; requests without an answer count as dropped."""
        for key in list(self._selector.get_map().values()):
            self._drop(key.data)
        self._selector.close()
        return self.tally

    def _take(self, connection: Connection, data: bytes) -> bool:
        """Add what arrived; whether the answer is complete."""
        if connection.buffer:
            data = connection.buffer + data
        span = body_span(data)
        if span is None:
            connection.buffer = data
            return False
        now = time.perf_counter()
        connection.buffer = b""
        self.busy -= 1
        status, body = int(data[9:12]), data[slice(*span)]
        if self._keep:
            self.tally.answers.append((connection.index, status, body))
        if self._begin <= connection.due < self._end:
            self.tally.statuses[status] += 1
            if status == 200:
                self.tally.latencies.append(now - connection.due)
                self.tally.cached += _CACHED in body
        connection.index = -1
        return True

    def _drop(self, connection: Connection) -> bool:
        """Forget a connection; whether a request was lost with it."""
        self._selector.unregister(connection.socket)
        connection.socket.close()
        lost = connection.index >= 0
        if lost:
            self.busy -= 1
            self.tally.dropped += self._begin <= connection.due < self._end
            if self._keep:
                self.tally.answers.append((connection.index, 0, b""))
        elif connection in self.idle:
            self.idle.remove(connection)
        return lost


def body_span(data: bytes) -> tuple[int, int] | None:
    """Where the body of the first HTTP/1.1 message begins and ends, or None while a part of it is missing.

    Raises:
        ValueError: the message does not say how long it is.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"a message without Content-Length: {head[:60]!r}")
    length = int(head[at + 17 : head.index(b"\r\n", at + 17)])
    return (end + 4, end + 4 + length) if len(data) >= end + 4 + length else None
