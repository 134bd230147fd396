"""What cannot start says why, in one sentence, and leaves nothing behind."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest
from local_redis import LocalRedis
from ports import free_port
from ray_node import HELPERS, NODE
from redis import Redis
from run_lock import RunLock

from tests.serve.conftest import Service, command
from tests.serve.processes import below, named


def run(
    arguments: list[str], redis_url: str, folder: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "REDIS_URL": redis_url, **environment}
    return subprocess.run(
        arguments, env=environment, cwd=folder, text=True, capture_output=True, timeout=300, check=False
    )


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


def test_one_port_for_two(tmp_path: Path, port: int) -> None:
    arguments = command(tmp_path, port)
    arguments[arguments.index("--metrics-port") + 1] = str(port)
    done = run(arguments, "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert errors(done) == [f"error: --port and --metrics-port are both {port}: choose another port for one of them"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("user:s3cret@127.0.0.1:PORT/0", "127.0.0.1:PORT/0"),
        ("127.0.0.1:PORT/0?username=user&password=s3cret", "127.0.0.1:PORT/0"),
        ("user:s3/cret@127.0.0.1:PORT/0", "…"),
    ],
)
def test_a_redis_that_does_not_answer(tmp_path: Path, port: int, address: str, shown: str) -> None:
    nowhere = str(free_port())
    done = run(command(tmp_path, port), f"redis://{address.replace('PORT', nowhere)}")
    assert done.returncode == 1
    (line,) = errors(done)
    assert line.startswith(f"error: REDIS_URL (redis://{shown.replace('PORT', nowhere)}) ")
    assert not [part for part in ("s3", "cret", "user") if part in done.stdout + done.stderr]


def test_a_redis_without_rights(tmp_path: Path, port: int, redis_server: LocalRedis) -> None:
    with Redis(port=redis_server.port) as client:
        client.acl_setuser("nobody", enabled=True, passwords=["+s3cret"], commands=["+ping"])
    done = run(command(tmp_path, port), f"redis://nobody:s3cret@127.0.0.1:{redis_server.port}/0")
    assert done.returncode == 1
    assert errors(done) == [
        f"error: Redis (redis://127.0.0.1:{redis_server.port}/0) does not let the service read and write usage: "
        "NoPermissionError"
    ]
    assert "s3cret" not in done.stdout + done.stderr


def test_a_relative_folder_is_taken_as_any_other(tmp_path: Path, port: int) -> None:
    """Redis starts in it, and the start ends where Ray would begin."""
    done = run(command(Path("a/b"), port), "", folder=tmp_path, RAY_ADDRESS="elsewhere:1")
    assert done.returncode == 1
    (line,) = errors(done)
    assert line.startswith("error: RAY_ADDRESS is set")
    assert (tmp_path / "a" / "b" / "redis" / "redis.log").is_file()


def test_a_folder_below_a_file(tmp_path: Path, port: int) -> None:
    (tmp_path / "file").touch()
    done = run(command(tmp_path / "file" / "state", port), "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert errors(done) == [f"error: --state {tmp_path}/file/state is not usable: Not a directory"]


def test_a_port_that_is_none(tmp_path: Path) -> None:
    done = run(command(tmp_path, 70_000), "redis://127.0.0.1:1/0")
    assert done.returncode == 2
    assert errors(done)[-1].endswith("error: argument --port: expected a port from 1 to 65535, got 70000")


def test_a_second_one_in_the_same_folder(tmp_path: Path, port: int) -> None:
    with RunLock(tmp_path):
        done = run(command(tmp_path, port), "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert errors(done) == [f"error: the service already runs from this folder, as process {os.getpid()}"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("applications: [{import_path: 'graph:build', deployments: [{name: Ingress, num_replicas: many}]}]",
         "applications.0.deployments.0: Value error, `num_replicas` must be an int"),
        ("applications: [{import_path: 'graph:build', args: {redis_urls: 'redis://u:s3cret@h/0'}}]",
         "applications.0.args.redis_urls: Extra inputs are not permitted"),
        ("applications: [{import_path: 'graph:build', name: switchboard, args: {served_log: }}]",
         "applications.0.args.served_log: Input should be a valid dictionary"),
        ("applications: [{import_path: 'graph:build', deployments: [{name: Ingress, num_replica: 2}]}]",
         "applications.0.deployments.0.num_replica: no such setting, is num_replicas meant?"),
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
    assert "s3cret" not in line
    assert not done.stdout


def test_a_ray_that_does_not_start(tmp_path: Path, port: int, redis_server: LocalRedis) -> None:
    folder = tmp_path / ("ray" * 40)
    done = run(command(tmp_path, port), redis_server.url, RAY_TMPDIR=str(folder))
    assert done.returncode == 1
    [error] = errors(done)
    assert error.startswith("error: Ray does not start: ")
    assert "AF_UNIX path length cannot exceed 107 bytes" in error


def test_a_failed_start_leaves_no_process_and_no_lock(tmp_path: Path, port: int) -> None:
    run(command(tmp_path, port), f"redis://127.0.0.1:{free_port()}/0")
    with RunLock(tmp_path):
        pass
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(tmp_path) in part for part in process.info["cmdline"] or ())
    ]


def test_it_runs_without_the_helpers_of_ray_that_one_machine_does_not_need(service: Service) -> None:
    """Each of them would take some 50 to 70 MiB."""
    running = {argument for _, line in below(service.process.pid) for argument in line}
    assert any("gcs_server" in argument for argument in running)
    assert not [argument for argument in running if argument.endswith(HELPERS)]


def test_nothing_that_runs_code_for_its_callers_listens_to_other_machines(service: Service) -> None:
    """Ray asks nobody who calls: its ports are those of a shell."""
    heard = {
        (name, connection.laddr.ip.removeprefix("::ffff:"))
        for name in NODE
        for child in named(service.process.pid, name)
        for connection in child.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert heard == {("gcs_server", "127.0.0.1"), ("raylet", "127.0.0.1")}
