"""Answers to many `SET` commands, read as they come from the wire."""

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.usage_writer import await_taken

TAKEN, REFUSED = b"+OK\r\n", b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"


class Wire:
    """A connection of redis-py's to the other end of a socket."""

    def __init__(self) -> None:
        here, self.server = socket.socketpair()
        self.redis = Redis(host="127.0.0.1", port=1)
        self.connection = cast(Any, self.redis.connection_pool.make_connection())
        self.connection._sock = here

    def close(self) -> None:
        self.server.close()
        self.connection._sock.close()
        self.connection._sock = None
        self.redis.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


class TestAwaitTaken:
    @given(st.lists(st.booleans(), min_size=1, max_size=50), st.integers(1, 500))
    def test_the_first_refusal_is_raised_and_all_answers_are_read(self, taken: list[bool], at_once: int) -> None:
        """Whatever the size of the pieces that they come in."""
        wire = Wire()
        try:
            answers = [TAKEN if fine else REFUSED.replace(b"OOM", f"OOM {n}".encode()) for n, fine in enumerate(taken)]
            wire.server.sendall(b"".join(answers))
            if all(taken):
                await_taken(wire.connection, len(taken), at_once)
            else:
                with pytest.raises(ResponseError, match=f"^OOM {taken.index(False)} command not allowed"):
                    await_taken(wire.connection, len(taken), at_once)
            wire.connection._sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                wire.connection._sock.recv(1)
        finally:
            wire.close()

    def test_an_answer_of_another_kind_is_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN + b"$-1\r\n")
        with pytest.raises(ResponseError, match=r"^\$-1$"):
            await_taken(wire.connection, 2)

    def test_more_answers_than_commands_are_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN * 3)
        with pytest.raises(ResponseError, match="too many answers"):
            await_taken(wire.connection, 2)

    def test_a_closed_connection_is_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN + b"+O")
        wire.server.shutdown(socket.SHUT_WR)
        with pytest.raises(RedisConnectionError, match="closed"):
            await_taken(wire.connection, 2)

    def test_silence_is_an_error(self, wire: Wire) -> None:
        wire.connection._sock.settimeout(0.01)
        with pytest.raises(RedisTimeoutError, match="in time"):
            await_taken(wire.connection, 1)
