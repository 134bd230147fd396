"""Constant answers from bare sockets, to measure what a load generator can do: `-m loadtests.reflector PORT`."""

import json
import selectors
import socket
import sys

from loadtests.connections import body_span

ANSWER = json.dumps(
    {
        "request_id": "0123456789abcdef0123456789abcdef",
        "product": "checking_account",
        "confidence": 0.9876,
        "action": {"type": "route", "desk": "accounts"},
        "top": [{"product": p, "confidence": 0.9876} for p in ("checking_account", "credit_card", "transfers")],
        "evidence": {
            part: {"checking_account": 0.9876, "credit_card": 0.0123, "transfers": 0.0045}
            for part in ("text", "context")
        },
        "features": {
            "recent_screens": [],
            "product_usage_60d": {"checking_account": 40, "transfers": 25, "credit_card": 30, "bill_payments": 10},
        },
        "cached": True,
        "degraded": [],
        "model_version": "0123456789ab",
        "preprocessing": "0123456789abcdef",
    },
    separators=(",", ":"),
).encode()
"""As long as an answer of the graph."""


def serve(listener: socket.socket) -> None:
    """Answer every request on a listening socket, for ever."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    buffers: dict[socket.socket, bytes] = {}
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, connection)
                buffers[connection] = b""
                continue
            connection = key.data
            data = _received(connection)
            if not data:
                selector.unregister(connection)
                del buffers[connection]
                connection.close()
                continue
            buffer = buffers[connection] + data
            while span := body_span(buffer):
                connection.sendall(head + ANSWER)
                buffer = buffer[span[1] :]
            buffers[connection] = buffer


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def main() -> None:
    """Listen on 127.0.0.1 and say so."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        print("listening", flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
