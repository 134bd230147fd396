"""A second model, deployed while customers write: it comes and goes in the running replicas, and no answer is lost, not
even to a slip in its settings."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from local_redis import LocalRedis
from ports import free_port

from models.bundle import Bundle
from models.registry import Registry
from tests.serve.conftest import command, running, write_config
from tests.serve.customers import Customers, deploy
from tests.serve.polling import page, until
from tests.serve.processes import replicas
from tests.unit.bundle_copies import variant


@pytest.fixture(scope="module")
def dashboard() -> int:
    return free_port()


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """The default bundle, and the same one with a threshold that sends everybody to the general queue."""
    present = Registry().load("production")
    shutil.copytree(present.path, tmp_path / "bundles" / present.version)
    variant(present, tmp_path / "bundles", confidence_threshold=1.0)
    return tmp_path / "bundles"


@pytest.fixture
def config(tmp_path: Path, registry: Path, present: Bundle, redis_server: LocalRedis) -> dict[str, Any]:
    """As the service runs with it, so that nothing but what a test changes is new when it is deployed."""
    config: dict[str, Any] = yaml.safe_load(write_config(tmp_path / "plain.yaml").read_text())
    for application in config["applications"]:
        application["args"]["redis_url"] = redis_server.url
    config["applications"][0]["args"] |= {"registry": str(registry), "model": present.version}
    config["http_options"]["port"] = free_port()
    return config


@pytest.fixture
def present() -> Bundle:
    return Registry().load("production")


@pytest.fixture
def service(
    tmp_path: Path, config: dict[str, Any], redis_server: LocalRedis, dashboard: int
) -> Iterator["subprocess.Popen[str]"]:
    first, port = written(tmp_path / "first.yaml", config), config["http_options"]["port"]
    arguments = [*command(tmp_path, port, "--config", str(first), "--served-log", "off"), "--dashboard"]
    arguments += ["--dashboard-port", str(dashboard)]
    with running(arguments, redis_server.url) as process:
        yield process


def written(path: Path, config: dict[str, Any], candidate: dict[str, Any] | None = None) -> Path:
    """The configuration with a candidate."""
    ingress = next(d for d in config["applications"][0]["deployments"] if d["name"] == "Ingress")
    ingress["user_config"]["candidate"] = candidate
    path.write_text(yaml.safe_dump(config))
    return path


def wanted_candidate(dashboard: int) -> dict[str, Any] | None:
    """What Ray has been asked for."""
    told = json.loads(page(f"http://127.0.0.1:{dashboard}/api/serve/applications/") or "{}")
    if not told:
        return None
    ingress = told["applications"]["switchboard"]["deployments"]["Ingress"]
    candidate: dict[str, Any] | None = ingress["deployment_config"]["user_config"]["candidate"]
    return candidate


def test_it_comes_and_goes_in_the_running_replicas(
    tmp_path: Path,
    service: "subprocess.Popen[str]",
    dashboard: int,
    config: dict[str, Any],
    registry: Path,
    present: Bundle,
) -> None:
    [candidate] = {path.name for path in registry.iterdir()} - {present.version}
    before, address = {*replicas(service.pid)}, f"http://127.0.0.1:{config['http_options']['port']}"
    assert len(before) >= 5
    with Customers(address, 3) as customers:
        deploy(written(tmp_path / "wrong.yaml", config, {"model": candidate, "percent": 5}), dashboard)
        until(lambda: wanted_candidate(dashboard), bool)
        seen = len(customers.answers)
        customers.wait_for(lambda answers: len(answers) >= seen + 200)
        deploy(written(tmp_path / "all.yaml", config, {"model": candidate, "share": 1.0}), dashboard)
        customers.wait_for(lambda answers: {version for *_, version in answers[-3:]} == {candidate})
        models = httpx.get(f"{address}/v1/models", timeout=60).json()["models"]
        assert [(m["role"], m["version"]) for m in models] == [("present", present.version), ("candidate", candidate)]
        deploy(written(tmp_path / "none.yaml", config), dashboard)
        customers.wait_for(lambda answers: {version for *_, version in answers[-3:]} == {present.version})
    customers.require_answers()
    assert {desk for _, desk, version in customers.answers if version == candidate} == {"general"}
    assert {*replicas(service.pid)} >= before, "none of them was restarted"
