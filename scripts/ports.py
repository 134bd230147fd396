"""Ports of this machine: is one free, which one is."""

import contextlib
import socket


def is_free(port: int) -> bool:
    """Whether a listener can be opened on all interfaces, where HAProxy wants it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return True
    return False


_given = set[int]()


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, otherwise any that is free on 127.0.0.1, no port twice in this process."""
    if preferred and is_free(preferred):
        return preferred
    with contextlib.ExitStack() as tried:
        while True:
            probe = tried.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in _given:
                _given.add(port)
                return port
