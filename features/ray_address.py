"""Checks within seconds that a Ray cluster answers at an address; Ray itself would try for minutes."""

import socket
from contextlib import closing, suppress
from urllib.parse import urlsplit

import grpc
from ray._private.grpc_utils import init_grpc_channel

THIS_MACHINE = "auto"
_CONNECT_TIMEOUT_S = 5.0


def require_answer(address: str) -> None:
    """Check that Ray answers at an address; `auto` is left to Ray.

    Args:
        address: `auto`, `host:port`, or `ray://host:port`.

    Raises:
        ValueError: it is none of these.
        ConnectionError: nothing listens there, or something else than Ray.
    """
    if address == THIS_MACHINE:
        return
    host, port, place = _parts(address)
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConnectionError(f"no Ray answers at {address}: {error.strerror or error}") from None
    with closing(init_grpc_channel(place)) as channel:
        try:
            grpc.channel_ready_future(channel).result(_CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            raise ConnectionError(f"what listens at {address} is no Ray cluster") from None


def _parts(address: str) -> tuple[str, int, str]:
    """Host, port, and `host:port`."""
    with suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.scheme in ("", "ray") and parts.hostname and parts.port:
            return parts.hostname, parts.port, parts.netloc
    raise ValueError(f"a Ray cluster's address is auto, HOST:PORT or ray://HOST:PORT, not {address}")
