"""Links: real Unix sockets between a caller and its replicas, on asyncio's own loop and on uvloop."""

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable, Coroutine
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import CALL, RESULT, FrameProtocol, dumps
from deployments.link_server import LinkServer
from deployments.links import Link, LinkLost, Links, socket_name
from deployments.protocol import DependencyError, LogitBatch, TokenBatch
from tests.unit.gate import Gate
from tests.unit.tokens import Classifier, answer, lists, logits, tokens

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NAMES = st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"]))
Frame = tuple[int, int, bytes]
Words = Gate[str, str]
Stage = Callable[[Any], Awaitable[Any]]


class Puppet(FrameProtocol):
    """One end of a link that the test plays; what arrives waits to be looked at."""

    def __init__(self, transport: Any = None) -> None:
        super().__init__()
        self.transport = transport
        self.arrived: asyncio.Queue[Frame] = asyncio.Queue()

    def received(self, call: int, kind: int, payload: bytes) -> None:
        self.arrived.put_nowait((call, kind, payload))


class Node:
    """Replicas of a stage and callers of theirs; those look for sockets once, and when they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: list[Links | LinkServer | asyncio.AbstractServer] = []

    def path(self, replica: str) -> Path:
        return self.folder / socket_name("app", "Stage", replica)

    def caller(self, refresh_s: float = 1e9) -> Links:
        self._parts.append(links := Links(self.folder, socket_name("app", "Stage"), refresh_s, 2, stall_s=60.0))
        return links

    async def serve(self, stage: Stage, replica: str = "one") -> LinkServer:
        self._parts.append(server := LinkServer(stage, self.path(replica)))
        await server.start()
        return server

    async def play(self) -> Puppet:
        """Be the replica."""
        puppet = Puppet()
        self.folder.mkdir()
        path = str(self.path("one"))
        self._parts.append(await asyncio.get_running_loop().create_unix_server(lambda: puppet, path))
        return puppet

    async def link(self, stage: Stage | None = None) -> tuple[Link, Links]:
        """A link, to a new replica if its stage is given, and the caller that has it."""
        if stage is not None:
            await self.serve(stage)
        links = self.caller()
        await links.refresh()
        link = links.pick()
        assert link is not None
        return link, links

    async def end(self) -> None:
        for part in self._parts:
            part.close()
        await turns()


def on_both_loops(test: Callable[[Node], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str) -> None:
        # Not in `tmp_path`, which may be too long for sockets.
        with TemporaryDirectory(dir="/tmp") as folder, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            node = Node(Path(folder, "links"))
            try:
                runner.run(test(node))
            finally:
                runner.run(node.end())

    return run


async def turns() -> None:
    """Let the loop do all that it can do by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


async def echo(batch: Any) -> Any:
    return batch


class Unreadable(Exception):
    """Pickles, and does not come back."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


@on_both_loops
async def test_a_call_returns_the_answer_of_the_stage(node: Node) -> None:
    link, _ = await node.link(Classifier())
    for rows in ([[1, 2], [3]], [], [list(range(1_000_000))]):
        batch = await link.call(tokens("v", *rows))
        assert np.array_equal(batch.logits, logits("v", *rows))
        assert (batch.version, batch.logits.dtype, batch.cached.tolist()) == ("v", "float32", [False] * len(rows))


@on_both_loops
async def test_concurrent_calls_get_each_their_own_answer_in_whatever_order_they_come(node: Node) -> None:
    gate: Gate[TokenBatch, LogitBatch] = Gate()
    link, _ = await node.link(gate)
    calls = [asyncio.ensure_future(link.call(tokens("v", [i]))) for i in range(20)]
    held = [await gate.next() for _ in calls]
    assert [lists(one.argument) for one in held] == [[[i]] for i in range(20)]
    for i in (*range(1, 20, 2), *range(18, -1, -2)):
        held[i].answer.set_result(answer(held[i].argument))
        assert np.array_equal((await calls[i]).logits, logits("v", [i]))


@on_both_loops
async def test_a_failure_reaches_its_caller_alone_with_its_type_or_if_it_cannot_travel_in_words(node: Node) -> None:
    told = {
        "^Unreadable: this and that$": Unreadable("this", "that"),
        "^OSError: .*this and that": OSError("this and that", lambda: None),
        "cancelled": asyncio.CancelledError(),  # as in the cache, when an inference is that a call waits for
    }

    async def stage(batch: Any) -> Any:
        if batch in told or isinstance(batch, Exception):
            raise told.get(batch, batch)
        return (lambda: None) if batch == "unwritable" else batch

    link, _ = await node.link(stage)
    for error in (DependencyError("Classifier: no answer"), KeyError("v2")):
        with pytest.raises(type(error), match=r"^(Classifier: no answer|'v2')$"):
            await link.call(error)
    for words in told:
        with pytest.raises(RuntimeError, match=words):
            await link.call(words)
    for unwritable in ("unwritable", lambda: None):
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            await link.call(unwritable)
    assert (await link.call("ping"), link.calls) == ("ping", 0)


@on_both_loops
async def test_a_replica_that_goes_loses_its_calls_and_is_picked_no_more(node: Node) -> None:
    puppet = await node.play()
    link, links = await node.link()
    calls = [asyncio.ensure_future(link.call(i)) for i in range(3)]
    assert [await puppet.arrived.get() for _ in calls] == [(i + 1, CALL, dumps(i)) for i in range(3)]
    assert puppet.transport is not None
    puppet.transport.abort()
    for call in (*calls, link.call(3)):
        with pytest.raises(LinkLost):
            await call
    assert (links.pick(), link.calls) == (None, 0)


@on_both_loops
async def test_answers_to_nobody_are_dropped_and_one_that_cannot_be_read_loses_the_link(node: Node) -> None:
    puppet = await node.play()
    link, links = await node.link()
    first = asyncio.ensure_future(link.call("first"))
    number, *_ = await puppet.arrived.get()
    for i, value in ((number + 1, "not asked"), (number, "first"), (number, "again")):
        puppet.send(i, RESULT, dumps(value))
    assert await first == "first"
    second = asyncio.ensure_future(link.call("second"))
    puppet.send((await puppet.arrived.get())[0], RESULT, b"no pickle")
    with pytest.raises(LinkLost):
        await second
    assert links.pick() is None


@on_both_loops
async def test_a_call_that_is_cancelled_leaves_the_link_as_it_is(node: Node) -> None:
    gate: Words = Gate()
    link, links = await node.link(gate)
    leaves = asyncio.ensure_future(link.call("one"))
    held = await gate.next()
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert (links.pick(), link.calls) == (link, 0)
    stays = asyncio.ensure_future(link.call("two"))
    other = await gate.next()
    held.answer.set_result("late")
    other.answer.set_result("in time")
    assert await stays == "in time"


@on_both_loops
async def test_a_closed_server_is_picked_no_more_and_answers_the_calls_under_way(node: Node) -> None:
    gate: Words = Gate()
    server = await node.serve(gate)
    link, links = await node.link()
    calls = [asyncio.ensure_future(link.call(word)) for word in ("one", "two")]
    held = [await gate.next() for _ in calls]
    server.close()
    assert not list(node.folder.iterdir())
    for one, call in zip(held, calls, strict=True):
        one.answer.set_result(one.argument.upper())
        assert await call == one.argument.upper()
        assert links.pick() is None
    with pytest.raises(LinkLost):
        await link.call("three")


@on_both_loops
async def test_the_least_busy_replica_is_picked_until_each_has_its_most_calls(node: Node) -> None:
    gate: Words = Gate()
    for replica in ("one", "two"):
        await node.serve(gate, replica)
    _, links = await node.link()
    picked: list[tuple[Link, int]] = []
    calls: list[asyncio.Future[str]] = []
    while (link := links.pick()) is not None:
        picked.append((link, link.calls))
        calls.append(asyncio.ensure_future(link.call("word")))
        await turns()
    assert [busy for _, busy in picked] == [0, 0, 1, 1]
    (await gate.next()).answer.set_result("done")
    (call,), _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert links.pick() is picked[calls.index(call)][0]


@on_both_loops
async def test_looking_for_sockets_deletes_those_that_nobody_listens_on(node: Node) -> None:
    await node.serve(echo)
    other = node.folder / socket_name("app", "Other", "dead")
    for path in (node.path("dead"), other):
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(str(path))
    link, _ = await node.link()
    assert await link.call("ping") == "ping"
    assert {*node.folder.iterdir()} == {node.path("one"), other}


@on_both_loops
async def test_picking_finds_servers_that_started_later_and_looks_no_more_often_than_it_should(node: Node) -> None:
    links, seldom = node.caller(refresh_s=0), node.caller()
    assert (links.pick(), seldom.pick()) == (None, None)
    await turns()
    for _ in range(2):
        server = await node.serve(echo)
        while (link := links.pick()) is None:
            await turns()
        assert (seldom.pick(), await link.call("ping"), seldom.pick()) == (None, "ping", None)
        server.close()
        await turns()
        assert links.pick() is None


@on_both_loops
async def test_the_folder_of_sockets_is_for_the_user_alone_and_a_path_too_long_for_one_is_refused(node: Node) -> None:
    with pytest.raises(OSError, match="path too long"):
        await node.serve(echo, "r" * 108)
    assert oct(node.folder.stat().st_mode & 0o777) == "0o700"


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 255), st.binary(max_size=40))), st.data())
def test_frames_arrive_whole_and_in_order_however_they_are_cut(frames: list[Frame], data: st.DataObject) -> None:
    written: list[bytes] = []
    sender, receiver = Puppet(SimpleNamespace(write=written.append, is_closing=lambda: False)), Puppet()
    for frame in frames:
        sender.send(*frame)
    sent = b"".join(written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)))))
    for start, end in pairwise([0, *cuts, len(sent)]):
        receiver.data_received(sent[start:end])
    assert [receiver.arrived.get_nowait() for _ in range(receiver.arrived.qsize())] == frames


@given(NAMES, NAMES, NAMES, NAMES)
def test_socket_names_are_short_and_differ_by_app_and_deployment(a: str, b: str, c: str, d: str) -> None:
    assert len(socket_name(a, b, "k3x9")) == 22
    assert (socket_name(a, b) == socket_name(c, d)) == ((a, b) == (c, d))
    assert fnmatch(socket_name(a, b, "k3x9"), socket_name(a, b))
