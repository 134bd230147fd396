"""The command line of `scripts/serve`."""

from pathlib import Path

import options
import pytest


def test_relative_paths_are_those_of_the_working_directory() -> None:
    assert options.parse(["--config", "here.yaml"]).config == Path.cwd() / "here.yaml"
    assert options.parse(["--state", "here/state"]).state == Path.cwd() / "here" / "state"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [("logs/served", str(Path.cwd() / "logs" / "served")), ("/var/served", "/var/served"), ("off", "off"), ("", "")],
)
def test_a_relative_served_log_is_one_of_the_working_directory(given: str, passed_on: str) -> None:
    """Replicas, which write it, work elsewhere."""
    assert options.parse(["--served-log", given]).served_log == passed_on
    assert options.parse([]).served_log is None


@pytest.mark.parametrize("option", ["--port", "--metrics-port", "--dashboard-port"])
@pytest.mark.parametrize("value", ["70000", "65536", "0", "-1", "http", "²"])
def test_what_is_no_port_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse([f"{option}={value}"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"scripts/serve: error: argument {option}: expected a port from 1 to 65535, got {value}"


@pytest.mark.parametrize("value", ["1", "65535"])
def test_the_first_and_the_last_port_are_taken(value: str) -> None:
    assert options.parse(["--port", value]).port == int(value)


def test_a_port_for_no_dashboard_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--dashboard-port", "8266"])
    assert capsys.readouterr().err.endswith("error: --dashboard-port has no effect without --dashboard\n")
    assert options.parse(["--dashboard", "--dashboard-port", "8266"]).dashboard_port == 8266
    assert options.parse(["--dashboard"]).dashboard_port == 8265
