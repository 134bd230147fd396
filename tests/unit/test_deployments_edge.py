"""The shortcut past Ray: only for paths that have shown themselves, only on the loop where their application runs."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments import edge
from deployments.hot_route import HotRoute

RAY = PlainTextResponse("ray")


@pytest.fixture
def path() -> Iterator[str]:
    """A path of this test's own: shortcuts are the process'."""
    name = f"/{uuid4()}"
    yield name
    edge._shortcuts.pop(name, None)


def guarded(app: ASGIApp = RAY) -> ASGIApp:
    """An application behind what Ray is told to put round it."""
    for middleware in reversed(edge.middlewares()):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


async def post(app: ASGIApp, path: str) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://switchboard") as client:
        return (await client.post(path)).text


async def test_a_path_takes_the_long_way_until_it_is_shortened(path: str) -> None:
    app = guarded()
    assert await post(app, path) == "ray"
    edge.shorten(path, PlainTextResponse("short"))
    assert await post(app, path) == "short"


async def test_a_short_answer_carries_an_identifier_as_ray_s_own_do(path: str) -> None:
    edge.shorten(path, PlainTextResponse("short", 422, headers={"x-other": "kept"}))
    transport = httpx.ASGITransport(guarded())
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        named = await client.post(path, headers={"X-Request-ID": "of the client"})
        nameless = [await client.post(path) for _ in range(2)]
    assert named.headers.get_list("x-request-id") == ["of the client"]
    assert named.headers["x-other"] == "kept"
    assert len({answer.headers["x-request-id"] for answer in nameless}) == 2


@pytest.mark.parametrize("given", [b"x" * 1025, b"\xff"])
async def test_an_identifier_that_no_answer_could_carry_is_replaced(path: str, given: bytes) -> None:
    """HAProxy makes a 500 of an answer whose headers have more than 15 KiB."""
    edge.shorten(path, PlainTextResponse("short"))
    transport = httpx.ASGITransport(guarded())
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        answers = [await client.post(path, headers={b"X-Request-ID": value}) for value in (b"x" * 1024, given)]
    assert [len(answer.headers["x-request-id"]) for answer in answers] == [1024, 32]


async def test_ray_sees_no_header_that_it_cannot_answer_or_that_sets_its_timeout() -> None:
    """To the first ones the answer would be a 500, after the other a 408 for what may have been stored."""
    seen: list[tuple[bytes, bytes]] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await RAY(scope, receive, send)

    good = [(b"x-request-id", "of the clïent".encode()), (b"content-type", b"application/json")]
    strange = [(b"x-request-id", b"\xff"), (b"x-request-timeout-seconds", b"0.001"), (b"x-\xff", b"1")]
    strange.append((b"x-request-id", b"x" * 1025))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [*good, *strange]}

    async def ignore(message: Message) -> None:
        pass

    await guarded(ray)(scope, no_body, ignore)
    assert seen == good


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_other_paths_take_the_long_way(path: str) -> None:
    edge.shorten(path, PlainTextResponse("short"))
    assert [await post(guarded(), path + more) for more in ("/", "x", "/more")] == ["ray"] * 3


def test_another_loop_takes_the_long_way(path: str) -> None:
    async def shorten() -> None:
        edge.shorten(path, PlainTextResponse("short"))

    asyncio.run(shorten())
    assert asyncio.run(post(guarded(), path)) == "ray"


async def test_what_is_not_http_takes_the_long_way(path: str) -> None:
    seen: list[str] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        raise AssertionError("nobody should ask")

    edge.shorten(path, PlainTextResponse("short"))
    for kind in ("lifespan", "websocket"):
        await guarded(ray)({"type": kind, "path": path}, nothing, nothing)
    assert seen == ["lifespan", "websocket"]


async def test_a_hot_route_shortens_its_own_path_prefix_included(path: str) -> None:
    async def hot(scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        return b'"hot"', b""

    calls: list[str] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        """Ray mounts an application at its prefix."""
        calls.append(scope["path"])
        await route({**scope, "root_path": path}, receive, send)

    route = HotRoute("/v1/predict", hot, RAY, found=edge.shorten)
    app, full = guarded(ray), f"{path}/v1/predict"
    try:
        assert [await post(app, full) for _ in range(3)] == ['"hot"'] * 3
        assert calls == [full]
        assert await post(app, f"{path}/v1/models") == "ray"
    finally:
        edge._shortcuts.pop(full, None)
