"""How the service ends."""

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml
from ports import fault, free_port

from tests.serve.conftest import ROOT, command, wait_until_ready
from tests.serve.polling import until


@contextmanager
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
    with started(tmp_path, free_port()) as (process, traces):
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "[switchboard] stopped"
    assert "failed to shut down" not in output
    until(lambda: left_behind(traces), lambda left: not left)


def test_a_node_that_is_lost_ends_the_service(tmp_path: Path) -> None:
    """Without its raylet nothing is started again, and answers would stop one by one."""
    with started(tmp_path, free_port()) as (process, traces):
        (raylet,) = (child for child in psutil.Process(process.pid).children() if child.name() == "raylet")
        raylet.kill()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in output
    (error,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "lost raylet" in error
    until(lambda: left_behind(traces), lambda left: not left)


def test_a_node_that_is_lost_while_the_service_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Nor does it end this process, whose Redis would be left behind."""
    with started(tmp_path, free_port()) as (process, traces):
        node = [child for child in psutil.Process(process.pid).children() if child.name() in ("gcs_server", "raylet")]
        (classifier,), (gatherer,) = replicas(process, "Classifier"), replicas(process, "FeatureGatherer")
        classifier.suspend()
        process.send_signal(signal.SIGTERM)
        until(gatherer.is_running, lambda running: not running)  # so Serve has begun, and waits for the classifier
        for part in node:
            part.kill()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "[switchboard] stopped"
    until(lambda: left_behind(traces), lambda left: not left)


def test_what_is_on_its_way_is_answered(tmp_path: Path) -> None:
    """The port is closed first; what came through it before is answered."""
    port = free_port()
    with started(tmp_path, port, "--config", str(patient(tmp_path / "config.yaml"))) as (process, _):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        ask(client, "a text that is answered before")
        assert client.getresponse().read()
        (classifier,) = replicas(process, "Classifier")
        classifier.suspend()
        ask(client, "a text whose classifier takes its time")
        process.send_signal(signal.SIGTERM)
        try:
            until(lambda: fault(port), lambda found: found is None)
        finally:
            classifier.resume()
        answer = client.getresponse()
        assert answer.status == 200, answer.read()
        process.communicate(timeout=120)
    assert process.returncode == 0


def patient(path: Path) -> Path:
    """The project's configuration with a deadline that no busy machine misses."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["applications"][0]["deployments"][0]["user_config"]["deadline_ms"] = 60_000
    path.write_text(yaml.safe_dump(config))
    return path


def ask(client: http.client.HTTPConnection, text: str) -> None:
    body = json.dumps({"user_id": "u1", "text": text})
    client.request("POST", "/v1/predict", body, {"content-type": "application/json"})


def replicas(process: "subprocess.Popen[str]", deployment: str) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.cmdline()[:1] == [f"ray::ServeReplica:switchboard:{deployment}"]]


def left_behind(traces: set[str]) -> list[str]:
    """The command lines of running processes that hold one of the traces."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(trace in line for trace in traces)]
