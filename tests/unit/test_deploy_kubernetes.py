"""The manifest serves what serve_config.yaml serves, with the environment of scripts/serve."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray_environment import CHEAPER, PROXY_CHECKS, SAFER

from features.__main__ import _parser
from tests.unit.exported_metrics import ROOT

MANIFEST = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "rayservice.yaml").read_text()))
SERVICE, POLICY, JOB = MANIFEST
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
PODS = [CLUSTER["headGroupSpec"]["template"], *(group["template"] for group in CLUSTER["workerGroupSpecs"])]
CONTAINERS = [container for pod in PODS for container in pod["spec"]["containers"]]
DIFFERENT = {
    "http_options.host": ("127.0.0.1", "0.0.0.0"),
    "applications.0.args.redis_url": ("redis://127.0.0.1:6380/0", "$REDIS_URL"),
    "applications.1.args.redis_url": ("redis://127.0.0.1:6380/0", "$REDIS_URL"),
    "applications.0.deployments.0.num_replicas": (1, 2),
    "applications.0.deployments.4.autoscaling_config.min_replicas": (1, 2),
    "applications.0.deployments.4.autoscaling_config.max_replicas": (2, 4),
}
"""Where the two may differ, and how."""


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a configuration that holds no others, with where it is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not inner:
        yield place, value
        return
    for name, part in inner:
        yield from leaves(part, f"{place}.{name}".lstrip("."))


def test_it_serves_the_same() -> None:
    own = dict(leaves(yaml.safe_load((ROOT / "serve_config.yaml").read_text())))
    there = dict(leaves(yaml.safe_load(SERVICE["spec"]["serveConfigV2"])))
    different = {place for place in own | there if own.get(place) != there.get(place)}
    assert {place: (own.get(place), there.get(place)) for place in different} == DIFFERENT


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_rays_environment_is_that_of_scripts_serve(container: dict[str, Any]) -> None:
    """The rest of what scripts/serve sets is for one machine: folders, free ports, and waiting less at the end."""
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment.pop("REDIS_URL") is None
    assert environment == {
        **(CHEAPER | SAFER | PROXY_CHECKS),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.edge:middlewares",
    }


def test_ray_is_the_locked_one() -> None:
    assert CLUSTER["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__}\n" in (ROOT / "requirements" / "serve.txt").read_text()


def test_the_address_of_redis_comes_from_the_secret_alone() -> None:
    job = JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    urls = [entry for container in [*CONTAINERS, job] for entry in container["env"] if entry["name"] == "REDIS_URL"]
    assert (
        urls == [{"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "switchboard-redis", "key": "url"}}}] * 3
    )
    assert "redis://" not in (ROOT / "deploy" / "kubernetes" / "rayservice.yaml").read_text()


def test_the_job_is_a_command_that_exists() -> None:
    command = JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["python", "-m", "features"]
    assert command[3] == "materialize"
    assert _parser().parse_args(command[3:]).events == Path("/data/usage")


def test_the_alert_names_the_job() -> None:
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert re.findall(r'cronjob="([\w-]+)"', alerts) == [JOB["metadata"]["name"]]


def test_pods_have_no_more_rights_than_they_need() -> None:
    specs = [pod["spec"] for pod in PODS] + [JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
    user = re.findall(r"--uid (\d+)", (ROOT / "deploy" / "docker" / "Dockerfile").read_text())
    assert [[str(spec["securityContext"]["runAsUser"])] for spec in specs] == [user] * 3
    assert {spec["automountServiceAccountToken"] for spec in specs} == {False}
    for container in (container for spec in specs for container in spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/dev/shm", "/var/lib/switchboard"} <= mounts


def test_only_rays_own_pods_reach_all_of_their_ports() -> None:
    selected = POLICY["spec"]["podSelector"]
    assert [pod["metadata"]["labels"].items() >= selected["matchLabels"].items() for pod in PODS] == [True, True]
    own, *others = POLICY["spec"]["ingress"]
    assert own == {"from": [{"podSelector": selected}]}
    opened = {port["port"] for rule in others for port in rule["ports"]}
    named = {port["containerPort"] for container in CONTAINERS for port in container["ports"]}
    assert opened == {8000, 8080, 8265}
    assert opened <= named
