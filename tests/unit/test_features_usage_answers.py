"""Answers to many transactions, read as they come from the wire."""

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.usage_wire import await_taken

QUEUED = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n"
TAKEN = QUEUED + b"*2\r\n:12\r\n:1\r\n"
FULL = b"OOM command not allowed when used memory > 'maxmemory'.\r\n"
REFUSED = [
    b"+OK\r\n-%d " + FULL + b"+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n",
    b"-%d NOPERM\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
    QUEUED + b"*2\r\n-%d WRONGTYPE\r\n:1\r\n",
    QUEUED + b"*2\r\n:1\r\n-%d ERR\r\n",
]


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
    @given(st.lists(st.sampled_from([None, *REFUSED]), min_size=1, max_size=50), st.integers(1, 500))
    def test_the_first_refusal_is_raised_and_all_answers_are_read(
        self, refused: list[bytes | None], at_once: int
    ) -> None:
        """Whatever the size of the pieces that they come in."""
        wire = Wire()
        try:
            wire.server.sendall(b"".join(TAKEN if why is None else why % n for n, why in enumerate(refused)))
            first = next((n for n, why in enumerate(refused) if why is not None), None)
            if first is None:
                await_taken(wire.connection, len(refused), at_once)
            else:
                with pytest.raises(ResponseError, match=f"^{first} "):
                    await_taken(wire.connection, len(refused), at_once)
            wire.connection._sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                wire.connection._sock.recv(1)
        finally:
            wire.close()

    def test_an_answer_of_another_kind_is_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN + QUEUED + b"*-1\r\n")
        with pytest.raises(ResponseError, match="unexpected answers"):
            await_taken(wire.connection, 2)

    def test_more_answers_than_commands_are_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN * 3)
        with pytest.raises(ResponseError, match="unexpected answers"):
            await_taken(wire.connection, 2)

    def test_a_server_that_loads_its_data_does_not_answer_yet(self, wire: Wire) -> None:
        """As redis-py has it for every other command: nothing is refused for good."""
        loading = b"-LOADING Redis is loading the dataset in memory\r\n"
        wire.server.sendall(TAKEN + b"+OK\r\n" + 2 * loading + b"-EXECABORT Transaction discarded\r\n")
        with pytest.raises(BusyLoadingError, match=r"^Redis is loading the dataset in memory$"):
            await_taken(wire.connection, 2)

    def test_a_closed_connection_is_an_error(self, wire: Wire) -> None:
        wire.server.sendall(TAKEN + TAKEN[:-1])
        wire.server.shutdown(socket.SHUT_WR)
        with pytest.raises(RedisConnectionError, match="closed"):
            await_taken(wire.connection, 2)

    def test_silence_is_an_error(self, wire: Wire) -> None:
        wire.connection._sock.settimeout(0.01)
        with pytest.raises(RedisTimeoutError, match="in time"):
            await_taken(wire.connection, 1)
