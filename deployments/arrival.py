"""How long a request lay in the kernel before it was read.

Where more comes than one process can even refuse, messages wait in their sockets, where no queue counts them: an answer
that seems to be in time is late for who asked.
"""

import socket
import struct

from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_LAST_DATA_RECV = 52
"""Where Linux' `struct tcp_info` has `tcpi_last_data_recv`: milliseconds since data came, read or not."""
_MILLISECONDS = struct.Struct("=I")


def unread_s(receive: Receive) -> float:
    """Seconds since the end of a request arrived on its connection; 0 before it has, and where nobody knows.

    Args:
        receive: the HTTP server's own, as `Edge` passes it on. Behind another framework, on Unix sockets and on systems
            other than Linux nobody knows.
    """
    cycle = getattr(receive, "__self__", None)
    if _TCP_INFO is None or not isinstance(cycle, RequestResponseCycle) or cycle.more_body:
        return 0.0
    connection = cycle.transport.get_extra_info("socket")
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_RECV + _MILLISECONDS.size)
        (milliseconds,) = _MILLISECONDS.unpack_from(info, _LAST_DATA_RECV)
    except (AttributeError, OSError, struct.error):
        return 0.0
    return float(milliseconds) / 1000
