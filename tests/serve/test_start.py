"""What cannot start says why, in one sentence, and leaves nothing behind."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest
from local_redis import LocalRedis
from ports import free_port
from ray_environment import HELPERS

from tests.serve.conftest import Service, command


def run(arguments: list[str], redis_url: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"REDIS_URL": redis_url}
    return subprocess.run(arguments, env=environment, text=True, capture_output=True, timeout=120, check=False)


def errors(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return done.stderr.strip().splitlines()


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_busy_port(tmp_path: Path, redis_server: LocalRedis) -> None:
    done = run(command(tmp_path, redis_server.port), redis_server.url)
    assert done.returncode == 1
    assert errors(done) == [
        f"error: port {redis_server.port} is in use: end what listens there, or choose another with --port"
    ]


def test_a_redis_that_does_not_answer(tmp_path: Path, port: int) -> None:
    nowhere = free_port()
    done = run(command(tmp_path, port), f"redis://user:secret@127.0.0.1:{nowhere}/0")
    assert done.returncode == 1
    (line,) = errors(done)
    assert line.startswith(f"error: REDIS_URL (127.0.0.1:{nowhere}/0) does not answer")
    assert "secret" not in done.stdout + done.stderr


def test_a_second_one_in_the_same_folder(tmp_path: Path, port: int) -> None:
    from run_lock import RunLock

    with RunLock(tmp_path):
        done = run(command(tmp_path, port), "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert errors(done) == [f"error: the service already runs from this folder, as process {os.getpid()}"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("applications: [{import_path: 'graph:build', deployments: [{name: Ingress, num_replicas: many}]}]",
         "applications.0.deployments.0: Value error, `num_replicas` must be an int"),
        ("applications: {", "while parsing a flow node"),
        (None, "No such file or directory"),
    ],
)  # fmt: skip
def test_a_wrong_configuration(
    tmp_path: Path, port: int, redis_server: LocalRedis, content: str | None, fault: str
) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_text(content)
    done = run(command(tmp_path, port, "--config", str(file)), redis_server.url)
    assert done.returncode == 1
    (line,) = errors(done)
    assert line.startswith("error: ")
    assert str(file) in line
    assert fault in line


def test_a_failed_start_leaves_no_process_and_no_lock(tmp_path: Path, port: int) -> None:
    run(command(tmp_path, port), f"redis://127.0.0.1:{free_port()}/0")
    assert not (tmp_path / "lock").exists()
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(tmp_path) in part for part in process.info["cmdline"] or ())
    ]


def test_it_runs_without_the_helpers_of_ray_that_one_machine_does_not_need(service: Service) -> None:
    """Each of them would take some 50 to 70 MiB."""
    children = psutil.Process(service.process.pid).children(recursive=True)
    running = {argument for child in children for argument in child.cmdline()}
    assert any("gcs_server" in argument for argument in running)
    assert not [argument for argument in running if argument.endswith(HELPERS)]
