"""Connections of the load generator, on a server that answers when the test says so."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import free_port

from loadtests.connections import Connections, body_span
from loadtests.load import closed_loop, figures, http_requests, open_loop, percentile
from loadtests.reflector import ANSWER

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = http_requests([b'{"text":"%d"}' % i for i in range(50)], 80)
FOREVER = float("inf")


@pytest.fixture(scope="module")
def reflector() -> Iterator[tuple[str, int]]:
    """A server that answers everything at once."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.reflector", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield "127.0.0.1", port
        process.terminate()


@dataclass
class Held:
    """A server that says nothing until `together` requests have arrived, each on a connection of its own."""

    together: int
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"cached":true}'
    seen: list[bytes] = field(default_factory=list)

    def __enter__(self) -> tuple[str, int]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        address: tuple[str, int] = self._listener.getsockname()
        return address

    def __exit__(self, *error: object) -> None:
        self._thread.join(timeout=60)
        self._listener.close()

    def _run(self) -> None:
        connections = [self._listener.accept()[0] for _ in range(self.together)]
        self.seen = [connection.recv(65536) for connection in connections]
        for connection in connections:
            connection.sendall(self.answer)
        for connection in connections:
            if self.answer:
                connection.recv(1)  # until the client has gone
            connection.close()


@given(st.binary(max_size=300), st.binary(max_size=50), st.integers(0, 400))
def test_a_message_is_complete_or_not_there(body: bytes, more: bytes, cut: int) -> None:
    message = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length: %d\r\nx: y\r\n\r\n%b" % (len(body), body)
    span = body_span((message + more)[:cut])
    assert span is None if cut < len(message) else message[slice(*span or (0, 0))] == body


def test_a_message_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        body_span(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


def test_a_closed_loop_sends_every_request_once(reflector: tuple[str, int]) -> None:
    tally = closed_loop(reflector, REQUESTS, clients=3, seconds=60, warm_up=0, keep=True)
    assert sorted(index for index, _, _ in tally.answers) == list(range(50))
    assert {(status, body) for _, status, body in tally.answers} == {(200, ANSWER)}
    assert (tally.statuses, tally.dropped, tally.cached) == ({200: 50}, 0, 50)
    assert len(tally.latencies) == 50


def test_all_clients_of_a_closed_loop_come_while_none_has_an_answer() -> None:
    with Held(together=4) as address:
        tally = closed_loop(address, REQUESTS[:4], clients=4, seconds=30, warm_up=0)
    assert tally.statuses == {200: 4}


def test_a_closed_loop_ends_in_time(reflector: tuple[str, int]) -> None:
    tally = closed_loop(reflector, REQUESTS * 10_000, clients=2, seconds=1.0, warm_up=0.05)
    assert 0 < tally.statuses[200] < 500_000
    assert tally.seconds == pytest.approx(1.0)


def test_the_warm_up_does_not_count_but_its_answers_are_kept(reflector: tuple[str, int]) -> None:
    tally = closed_loop(reflector, REQUESTS, clients=1, seconds=60, warm_up=60, keep=True)
    assert (len(tally.answers), sum(tally.statuses.values())) == (50, 0)


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """Its five requests are all on their way before the first answer."""
    held = Held(together=5)
    with held as address:
        tally = open_loop(address, REQUESTS[:5], rate=500, seconds=30, warm_up=0)
    assert [b'{"text":"%d"}' % i for i in range(5)] == [request.rpartition(b"\r\n")[2] for request in held.seen]
    assert (tally.statuses, tally.cached) == ({200: 5}, 5)


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """The first of five waits for the last, so its latency holds all of their gaps."""
    with Held(together=5) as address:
        tally = open_loop(address, REQUESTS[:5], rate=50, seconds=30, warm_up=0, seed=1)
    assert max(tally.latencies) - min(tally.latencies) > 0.01


def test_an_open_loop_sends_every_request_once(reflector: tuple[str, int]) -> None:
    tally = open_loop(reflector, REQUESTS, rate=2000, seconds=60, warm_up=0, keep=True)
    assert sorted(index for index, _, _ in tally.answers) == list(range(50))


def test_connections_that_end_are_counted() -> None:
    with Held(together=2, answer=b"") as address:
        connections = Connections(address, REQUESTS, 0, FOREVER, keep=True)
        for _ in range(2):
            connections.send(connections.open(), time.perf_counter())
        while connections.tally.dropped < 2:
            connections.receive(time.perf_counter() + 1)
    tally = connections.close()
    assert (tally.statuses, sorted(tally.answers)) == ({}, [(0, 0, b""), (1, 0, b"")])


def test_of_the_warm_up_no_connection_that_ends_is_counted_either() -> None:
    with Held(together=1, answer=b"") as address:
        connections = Connections(address, REQUESTS, FOREVER, FOREVER, keep=True)
        connections.send(connections.open(), time.perf_counter())
        while connections.busy:
            connections.receive(time.perf_counter() + 1)
    tally = connections.close()
    assert (tally.dropped, tally.answers) == (0, [(0, 0, b"")])


def test_other_statuses_are_no_latencies() -> None:
    with Held(together=1, answer=b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}") as address:
        tally = closed_loop(address, REQUESTS[:1], clients=1, seconds=30, warm_up=0)
    measured = figures(tally)
    assert (measured["failures"], measured["statuses"], measured["p50_ms"]) == (1, {"503": 1}, None)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    value = percentile(ordered, share)
    assert sum(v <= value for v in ordered) >= share * len(ordered) > sum(v < value for v in ordered)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)])
def test_percentiles_of_a_hundred(share: float, value: float) -> None:
    assert percentile(range(1, 101), share) == value
