"""Head and body of an answer in one write.

uvicorn writes them one after the other, and each write is a system call here and another wake-up for the proxy.
"""

import asyncio
from typing import Any, cast

from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def one_write(send: Send) -> Send:
    """A `send` that holds the head of an answer back until its body comes; without uvicorn the same `send`."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        return send
    head: list[Message] = []

    async def held(message: Message) -> None:
        if message["type"] == "http.response.start":
            head.append(message)
            return
        transport = cycle.transport
        joined = _Joined(transport)
        cycle.transport = cast(asyncio.Transport, joined)
        try:
            while head:
                await send(head.pop())
            await send(message)
        finally:
            cycle.transport = transport
            joined.flush()

    return held


class _Joined:
    """A transport that collects what is written until `flush` or `close`."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()
