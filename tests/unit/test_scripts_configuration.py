"""Serve configurations: the two files, and how `scripts/serve` changes one for its machine."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from configuration import read, settle_here
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview
from supervise import all_run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "serve_config.yaml"


def switchboard(config: dict[str, Any]) -> dict[str, Any]:
    application: dict[str, Any] = next(a for a in config["applications"] if a["name"] == "switchboard")
    return application


def test_the_gpu_file_is_the_other_one_but_for_what_a_gpu_needs() -> None:
    ours, gpu = (yaml.safe_load((ROOT / name).read_text()) for name in (CONFIG.name, "serve_config.gpu.yaml"))
    application = switchboard(ours)
    application["args"] |= {"model": "gpu", "device": "cuda"}
    deployments = {deployment["name"]: deployment for deployment in application["deployments"]}
    deployments["Ingress"]["user_config"] |= {"max_batch": 256, "max_queue": 8192}
    classifier = deployments["Classifier"]
    del classifier["max_surge_percent"]  # a second one would need a second GPU
    classifier["ray_actor_options"] |= {"num_gpus": 1}
    classifier["autoscaling_config"] |= {"upscale_delay_s": 10, "downscale_delay_s": 300}
    assert gpu == ours


@pytest.mark.parametrize(
    ("option", "in_file", "logged"),
    [
        (None, None, "STATE/served"),
        (None, "/var/log/served", "/var/log/served"),
        ("/tmp/elsewhere", "/var/log/served", "/tmp/elsewhere"),
        ("off", None, None),
        ("off", "/var/log/served", None),
    ],
)
def test_where_what_was_served_is_logged(
    tmp_path: Path, option: str | None, in_file: str | None, logged: str | None
) -> None:
    application = {"name": "switchboard", "import_path": "graph:build", "args": {"served_log": {"folder": in_file}}}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}))
    schema = read(file)
    settle_here(schema, Namespace(port=1234, served_log=option, state=tmp_path), "redis://127.0.0.1:1/0")
    (args,) = (application.args for application in schema.applications)
    assert args["served_log"]["folder"] == (logged and logged.replace("STATE", str(tmp_path)))
    assert args["redis_url"] == "redis://127.0.0.1:1/0"


def test_ready_are_as_many_applications_as_the_file_has() -> None:
    def known(*states: ApplicationStatus) -> dict[str, ApplicationStatusOverview]:
        return {
            f"application {i}": ApplicationStatusOverview(state, "", last_deployed_time_s=0, deployments={})
            for i, state in enumerate(states)
        }

    runs, starts = ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING
    assert all_run(known(runs), 1)
    assert all_run(known(runs, runs, runs), 3)
    assert not all_run(known(runs, runs), 3)
    assert not all_run(known(runs, starts), 2)
