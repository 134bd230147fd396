import socket

from ports import fault, free_port, is_free, reserve


def test_no_port_is_given_twice() -> None:
    """A service takes several before it listens on the first."""
    ports = [free_port() for _ in range(1000)]
    assert len(set(ports)) == len(ports)


def test_a_port_that_is_given_is_none_that_connections_get() -> None:
    """Whoever listens there later, or again after a crash, must not find a stranger's connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        lent = connection.getsockname()[1]
    assert max(free_port() for _ in range(100)) < lent


def test_the_preferred_one_is_given_again() -> None:
    port = free_port()
    assert is_free(port)
    assert [free_port(port), free_port(port)] == [port, port]


def test_what_is_reserved_is_not_given() -> None:
    """The service's own port is free until it listens there."""
    port = free_port()
    reserve(port)
    assert is_free(port)
    assert free_port(port) != port


def test_a_port_that_is_in_use_is_told_as_that() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert fault(taken.getsockname()[1]) == "is in use"
