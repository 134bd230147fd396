"""Where links may listen, which of several replicas a caller prefers, and when one is missed."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest

from deployments.frames import RESULT, FrameProtocol, dumps
from deployments.link_server import MAX_PATH, Call, LinkServer
from deployments.links import Link, Links
from tests.unit.gate import Gate


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in `tmp_path`, which may be too long for sockets."""
    with TemporaryDirectory(dir="/tmp") as made:
        path = Path(made, "links")
        path.mkdir(mode=0o700)
        yield path


async def echo(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
async def test_a_folder_that_others_may_write_is_refused_by_both_ends(folder: Path, mode: int) -> None:
    await asyncio.to_thread(folder.chmod, mode)
    with pytest.raises(PermissionError, match="open to others"):
        await LinkServer(echo, folder / "a.b.sock").start()
    with pytest.raises(PermissionError, match="open to others"):
        await Links(folder, "a.*.sock").refresh()


async def test_without_a_folder_there_are_no_links(folder: Path) -> None:
    links = Links(folder / "missing", "a.*.sock")
    await links.refresh()
    assert links.pick() is None
    links.close()


@pytest.mark.parametrize("more", [1, 2])
async def test_a_path_too_long_is_refused(folder: Path, more: int) -> None:
    name = "x" * (MAX_PATH + more - len(f"{folder}/.sock"))
    with pytest.raises(OSError, match="path too long"):
        await LinkServer(echo, folder / f"{name}.sock").start()


async def test_the_longest_path_works(folder: Path) -> None:
    name = "x" * (MAX_PATH - len(f"{folder}/.sock"))
    server, links = LinkServer(echo, folder / f"{name}.sock"), Links(folder, "*.sock")
    await server.start()
    await links.refresh()
    link = links.pick()
    assert link is not None
    assert await link.call([1, 2]) == [1, 2]
    links.close()
    await until(lambda: not server.peers)
    server.close()


@pytest.mark.parametrize(("prefer", "idle", "beside"), [("first", "a", "b"), ("last", "c", "b")])
async def test_callers_may_prefer_different_replicas(
    folder: Path, prefer: Literal["first", "last"], idle: str, beside: str
) -> None:
    """Each caller starts at its own end while all are idle, and goes on from there."""
    gate: Gate[str, str] = Gate()

    def stage(replica: str) -> Call:
        async def call(batch: str) -> str:
            return await gate(batch + replica)

        return call

    servers = [LinkServer(stage(replica), folder / f"x.{replica}.sock") for replica in "abc"]
    for server in servers:
        await server.start()
    links = Links(folder, "x.*.sock", prefer=prefer)
    await links.refresh()
    calls, under_way = [], []
    for replica in (idle, beside):
        link = links.pick()
        assert link is not None
        calls.append(asyncio.ensure_future(link.call("to ")))
        held = await gate.next()
        assert held.argument == f"to {replica}"
        under_way.append(held)
    for held in under_way:
        held.answer.set_result("done")
    assert await asyncio.gather(*calls) == ["done", "done"]
    links.close()
    for server in servers:
        server.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.to_thread(lambda: None)


class Crashing(FrameProtocol):
    """A replica that answers nothing and dies when it is told to."""

    def received(self, call: int, kind: int, payload: bytes) -> None:
        return

    def crash(self) -> None:
        assert self.transport is not None
        self.transport.abort()


async def test_a_replica_that_has_died_is_missed_for_a_while(folder: Path) -> None:
    replicas: list[Crashing] = []

    def accept() -> Crashing:
        replicas.append(Crashing())
        return replicas[-1]

    patient, brief = Links(folder, "x.*.sock"), Links(folder, "x.*.sock", restart_s=0)
    server = await asyncio.get_running_loop().create_unix_server(accept, str(folder / "x.a.sock"))
    for links in (patient, brief):
        assert not links.down, "there was none yet"
        await links.refresh()
        assert not links.down
    await until(lambda: len(replicas) == 2)
    server.close()
    for replica in replicas:
        replica.crash()
    await until(lambda: patient.pick() is brief.pick() is None)
    assert (patient.down, brief.down) == (True, False)


class Mute(FrameProtocol):
    """A replica that takes calls, and answers them when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def received(self, call: int, kind: int, payload: bytes) -> None:
        self.calls.append(call)

    def wake(self) -> None:
        for call in self.calls:
            self.send(call, RESULT, dumps("late"))


async def test_a_replica_that_hangs_gets_no_more_calls_until_it_answers(folder: Path) -> None:
    mute = Mute()
    server = await asyncio.get_running_loop().create_unix_server(lambda: mute, str(folder / "x.a.sock"))
    links = Links(folder, "x.*.sock", stall_s=0.001)
    await links.refresh()
    link = links.pick()
    assert link is not None
    assert not links.down
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await link.call("nobody waits for this any more")
    await until(lambda: links.down)
    assert (link.open, link.calls, links.pick()) == (True, 0, None)
    await until(lambda: mute.calls == [1])
    mute.wake()
    await until(lambda: links.pick() is link)
    assert not links.down
    server.close()
    links.close()


async def test_a_busy_replica_is_silent_only_since_it_was_last_heard(folder: Path) -> None:
    mute = Mute()
    server = await asyncio.get_running_loop().create_unix_server(lambda: mute, str(folder / "x.a.sock"))
    links = Links(folder, "x.*.sock")
    await links.refresh()
    link = links.pick()
    assert link is not None
    begun = time.monotonic()
    first, second = (asyncio.ensure_future(link.call(word)) for word in ("first", "second"))
    await until(lambda: mute.calls == [1, 2])
    assert link.silent_s <= time.monotonic() - begun, "since it was called, not for ever"
    begun = time.monotonic()
    mute.send(1, RESULT, dumps("answer"))
    assert await first == "answer"
    assert link.silent_s <= time.monotonic() - begun
    second.cancel()
    server.close()
    links.close()


async def connected(folder: Path) -> tuple[LinkServer, Links, Link]:
    """A server, and a caller with a link to it that has been used."""
    server, links = LinkServer(echo, folder / "x.a.sock"), Links(folder, "x.*.sock")
    await server.start()
    await links.refresh()
    link = links.pick()
    assert link is not None
    assert await link.call("accepted") == "accepted"
    return server, links, link


async def test_a_replica_that_says_good_bye_is_not_missed(folder: Path) -> None:
    """Another one takes its place, and Ray's router knows it already."""
    server, links, link = await connected(folder)
    server.close()
    await until(lambda: links.pick() is None and link.transport is not None and link.transport.is_closing())
    await asyncio.sleep(0)  # the end of the connection is told in the loop's next turn
    assert not links.down
    links.close()


async def test_looking_again_keeps_the_links_that_there_are(folder: Path) -> None:
    """A new one would know nothing of the calls under way."""
    server, links, link = await connected(folder)
    await links.refresh()
    assert links.pick() is link
    links.close()
    server.close()


async def test_all_callers_order_replicas_alike_however_they_found_them(folder: Path) -> None:
    early, late = (Links(folder, "x.*.sock", prefer="first") for _ in range(2))
    servers = []
    for replica in ("c", "a"):
        servers.append(LinkServer(naming(replica), folder / f"x.{replica}.sock"))
        await servers[-1].start()
        await early.refresh()
    await late.refresh()
    for links in (early, late):
        link = links.pick()
        assert link is not None
        assert await link.call("") == "a"
        links.close()
    for server in servers:
        server.close()


def naming(replica: str) -> Call:
    async def call(batch: str) -> str:
        return replica

    return call
