"""An answer leaves in one write, and looks as it does without that; on uvicorn's own protocol."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from deployments.one_write import one_write

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n%s\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written, write by write, with `None` for the end."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes | None] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.writes.append(None)

    def is_closing(self) -> bool:
        return None in self.writes

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def connected(app: ASGIApp) -> tuple[HttpToolsProtocol, Wire]:
    """uvicorn's end of a connection that a client has just opened."""
    protocol, wire = HttpToolsProtocol(Config(app, log_config=None, date_header=False), ServerState(), {}), Wire()
    protocol.connection_made(wire)
    return protocol, wire


async def talk(app: ASGIApp, *requests: bytes) -> list[bytes | None]:
    """What uvicorn writes when requests arrive all at once."""
    protocol, wire = connected(app)
    protocol.data_received(b"".join(requests))
    while protocol.tasks:
        await asyncio.wait([*protocol.tasks])
    writes = [*wire.writes]
    protocol.connection_lost(None)
    return writes


def wrapped(app: ASGIApp) -> ASGIApp:
    async def with_one_write(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, one_write(send))

    return with_one_write


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    async def parts() -> Any:
        for part in (b"a", b"b"):
            yield part

    await StreamingResponse(parts())(scope, receive, send)


def plain() -> ASGIApp:
    return PlainTextResponse("ok", 201, headers={"x-a": "b"})


async def test_head_and_body_are_one_write() -> None:
    writes = await talk(wrapped(plain()), GET % b"")
    assert len(writes) == 1
    assert len(await talk(plain(), GET % b"")) == 2


@pytest.mark.parametrize("app", [plain, lambda: PlainTextResponse(""), lambda: stream])
@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_the_bytes_are_the_same(app: Callable[[], ASGIApp], more: bytes) -> None:
    with_it, without = await talk(wrapped(app()), GET % more), await talk(app(), GET % more)
    assert b"".join(part for part in with_it if part) == b"".join(part for part in without if part)
    assert (with_it[-1] is None) == (without[-1] is None) == bool(more)


async def test_requests_that_come_together_are_answered_one_after_the_other() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["path"])(scope, receive, send)

    writes = await talk(wrapped(echo), GET.replace(b"/x", b"/1") % b"", GET.replace(b"/x", b"/2") % b"")
    assert [write and write.rpartition(b"\r\n\r\n")[2] for write in writes] == [b"/1", b"/2"]


async def test_an_application_that_breaks_before_the_body_is_a_500_of_uvicorn() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("before the body")

    answer = b"".join(write for write in await talk(wrapped(breaks), GET % b"") if write)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"200 OK" not in answer


async def test_a_client_that_leaves_before_the_body_gets_nothing_and_breaks_nothing() -> None:
    going = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        going.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"ok"})

    protocol, wire = connected(wrapped(slow))
    protocol.data_received(GET % b"")
    tasks = [*protocol.tasks]
    await going.wait()
    protocol.connection_lost(None)
    await asyncio.gather(*tasks)
    assert wire.writes == [None]


async def test_another_server_s_send_stays_as_it_is() -> None:
    async def send(message: object) -> None: ...

    assert one_write(send) is send
