"""How long a request lay unread, on a real server and a real connection."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.arrival import unread_s

BUSY_S = 0.1
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@asynccontextmanager
async def connection(seen: asyncio.Queue[float]) -> AsyncIterator[socket.socket]:
    """A client's end, to a server that notes what it is told of each request when it has read its head."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await seen.put(unread_s(receive))
        while (await receive())["more_body"]:
            pass
        await seen.put(unread_s(receive))
        await Response(b"")(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http="httptools", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve([listener]))
        with socket.socket() as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
            yield client
        server.should_exit = True
        await serving


async def answered(client: socket.socket) -> None:
    assert (await asyncio.get_running_loop().sock_recv(client, 1000)).startswith(b"HTTP/1.1 200")


@linux
async def test_a_request_that_a_busy_loop_did_not_read_has_waited() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    async with connection(seen) as client:
        client.send(HEAD + b"text")
        time.sleep(BUSY_S)  # noqa: ASYNC251 - it is the server's loop, too
        await answered(client)
        assert min(await seen.get(), await seen.get()) >= 0.8 * BUSY_S


@linux
async def test_only_its_end_counts() -> None:
    """Who sends slowly has not waited."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    async with connection(seen) as client:
        client.send(HEAD)
        time.sleep(BUSY_S)  # noqa: ASYNC251
        assert await seen.get() == 0.0
        client.send(b"text")
        await answered(client)


async def test_behind_something_else_nobody_knows() -> None:
    async def receive() -> dict[str, object]:
        return {}

    assert unread_s(receive) == 0.0
