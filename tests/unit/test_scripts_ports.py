from ports import free_port, is_free


def test_no_port_is_given_twice() -> None:
    """A service takes several before it listens on the first."""
    ports = [free_port() for _ in range(1000)]
    assert len(set(ports)) == len(ports)


def test_the_preferred_one_is_given_again() -> None:
    port = free_port()
    assert is_free(port)
    assert [free_port(port), free_port(port)] == [port, port]
