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


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, otherwise any that is free on 127.0.0.1."""
    if preferred and is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
