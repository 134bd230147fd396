"""Ports of this machine: is one free, which one is."""

import contextlib
import errno
import socket


def is_free(port: int) -> bool:
    """Whether a listener can be opened on all interfaces, where HAProxy wants it."""
    return fault(port) is None


def fault(port: int) -> str | None:
    """Why no listener can be opened, as the end of a sentence about the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except PermissionError:
            return "is for privileged users"
        except OSError as error:
            return "is in use" if error.errno == errno.EADDRINUSE else f"is not usable ({error.strerror})"
    return None


_given = set[int]()
_reserved = set[int]()


def reserve(*ports: int) -> None:
    """Have `free_port` give none of these: somebody will listen there soon."""
    _reserved.update(ports)


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, otherwise any that is free on 127.0.0.1, no port twice in this process."""
    if preferred and preferred not in _reserved and is_free(preferred):
        return preferred
    with contextlib.ExitStack() as tried:
        while True:
            probe = tried.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in _given | _reserved:
                _given.add(port)
                return port
