"""Ports of this machine: is one free, which one is."""

import errno
import random
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


_FREE = range(20_000, 30_000)
"""Below those that systems give to connections, since who asks for a port may listen there only seconds later, and
between those of Ray's workers and of its direct ingress. Taken at random: of two processes that ask at once both would
find the same one free."""
_untried = iter(random.SystemRandom().sample(_FREE, len(_FREE)))
_reserved = set[int]()


def reserve(*ports: int) -> None:
    """Have `free_port` give none of these: somebody will listen there soon."""
    _reserved.update(ports)


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, otherwise any of `_FREE` that is free, no port twice in this process.

    Raises:
        OSError: none is free.
    """
    if preferred and preferred not in _reserved and is_free(preferred):
        return preferred
    for port in _untried:
        if port not in _reserved and is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port from {_FREE.start} to {_FREE.stop - 1}")
