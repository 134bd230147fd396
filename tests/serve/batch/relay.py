"""A TCP relay in front of a server that holds or breaks every connection once so many bytes have gone there."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal


class Relay:
    """Listens on `port` of 127.0.0.1.

    Attributes:
        reached: set when the limit is.
    """

    def __init__(self, server_port: int, limit: int, then: Literal["hold", "break"]) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()
        self._server_port, self._left, self._then = server_port, limit, then
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._acceptor = threading.Thread(target=self._accept)
        self._pumps: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def release(self) -> None:
        """Let through what was held, and all that follows."""
        self._left = 2**62
        self._released.set()

    def __enter__(self) -> "Relay":
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut()
        self._released.set()
        self._acceptor.join()
        self._shut()  # a connection that was accepted meanwhile
        for pump in self._pumps:
            pump.join()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets.append(server)
                for ends in ((client, server, True), (server, client, False)):
                    pump = threading.Thread(target=self._pump, args=ends)
                    self._pumps.append(pump)
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if counted and self._over(len(data)):
                    if self._then == "break":
                        return self._shut()
                    self._released.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return None

    def _over(self, size: int) -> bool:
        with self._lock:
            self._left -= size
            if self._left < 0:
                self.reached.set()
            return self._left < 0

    def _shut(self) -> None:
        for end in self._sockets.copy():
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
