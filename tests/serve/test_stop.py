"""How the service ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import yaml
from ports import fault, free_port
from ray_node import NODE

from loadtests.targets import configuration, whole
from tests.serve.conftest import command, wait_until_ready, write_config
from tests.serve.polling import page, until
from tests.serve.processes import below, named, replicas

AGENT = ("dashboard/agent.py", "ray::DashboardAgent")
IN_FLIGHT = r"switchboard_batches_in_flight\{.*\} 1"


def small(folder: Path) -> tuple[str, str]:
    """The option for a service whose stages are all in one replica, as it starts soonest."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(configuration(partial(whole, ingresses=1))))
    return "--config", str(file)


@contextlib.contextmanager
def started(state: Path, port: int, *options: str) -> Iterator[tuple["subprocess.Popen[str]", set[str]]]:
    """A service that is ready, in a process group of its own, and what its processes' command lines hold."""
    with subprocess.Popen(
        command(state, port, *options),
        env=os.environ | {"REDIS_URL": ""},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            wait_until_ready(process)
            yield process, {str(state), (state / "scratch").read_text()}
        finally:
            process.terminate()


def test_a_signal_to_the_whole_process_group(tmp_path: Path) -> None:
    """As systemd and `timeout` send it: Ray's node ends at once, and Serve need not be waited for."""
    with started(tmp_path, free_port(), *small(tmp_path)) as (process, traces):
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "[switchboard] stopped"
    assert "failed to shut down" not in output
    until(lambda: left_behind(traces), lambda left: not left)


def test_a_signal_while_ray_starts(tmp_path: Path) -> None:
    """Ray's agent outlives its raylet by a minute or two where both have not met yet, and holds the metrics' port."""
    environment = os.environ | {"REDIS_URL": ""}
    with subprocess.Popen(command(tmp_path, free_port()), env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            agents = until(lambda: _agents(process.pid), bool)
        finally:
            process.terminate()
        process.wait(timeout=300)
    assert [agent for agent in agents if agent.is_running()] == []


def _agents(pid: int) -> list[psutil.Process]:
    return [child for child, line in below(pid) if any(part.endswith(AGENT) for part in line)]


def test_a_node_that_is_lost_ends_the_service(tmp_path: Path) -> None:
    """Without its raylet nothing is started again, and answers would stop one by one."""
    with started(tmp_path, free_port(), *small(tmp_path)) as (process, traces):
        (raylet,) = named(process.pid, "raylet")
        raylet.kill()
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in output
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "lost raylet" in error
    until(lambda: left_behind(traces), lambda left: not left)


def test_a_node_that_is_lost_while_the_service_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Nor does it end this process, whose Redis would be left behind."""
    with started(tmp_path, free_port()) as (process, traces):
        parts = named(process.pid, *NODE)
        (classifier,), (gatherer,) = replicas(process.pid, "Classifier"), replicas(process.pid, "FeatureGatherer")
        classifier.suspend()
        process.send_signal(signal.SIGTERM)
        until(gatherer.is_running, lambda running: not running)  # so Serve has begun, and waits for the classifier
        for part in parts:
            part.kill()
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "[switchboard] stopped"
    until(lambda: left_behind(traces), lambda left: not left)


def test_what_is_on_its_way_is_answered(tmp_path: Path) -> None:
    """The port is closed first; what came through it before is answered."""
    port, metrics_port = free_port(), free_port()
    metrics = f"http://127.0.0.1:{metrics_port}/metrics"
    options = (
        "--config",
        str(write_config(tmp_path / "config.yaml", deadline_ms=60_000)),
        "--metrics-port",
        str(metrics_port),
    )
    with started(tmp_path, port, *options) as (process, _), contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)))
        ask(client, "a text that is answered before")
        assert client.getresponse().read()
        (classifier,) = replicas(process.pid, "Classifier")
        classifier.suspend()
        ask(client, "a text whose classifier takes its time")
        until(lambda: page(metrics), lambda text: re.search(IN_FLIGHT, text) is not None)
        process.send_signal(signal.SIGTERM)
        try:
            until(lambda: fault(port), lambda found: found is None)
        finally:
            classifier.resume()
        answer = client.getresponse()
        assert answer.status == 200, answer.read()
        process.communicate(timeout=300)
    assert process.returncode == 0


def ask(client: http.client.HTTPConnection, text: str) -> None:
    body = json.dumps({"user_id": "u1", "text": text})
    client.request("POST", "/v1/predict", body, {"content-type": "application/json"})


def left_behind(traces: set[str]) -> list[str]:
    """The command lines of running processes that hold one of the traces."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(trace in line for trace in traces)]
