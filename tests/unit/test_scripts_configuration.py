"""Serve configurations: the two files, and how `scripts/serve` changes one for its machine."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from configuration import (
    ConfigurationError,
    address,
    port_of,
    read,
    redis_urls,
    settle_here,
    unknown_desks,
    why_haproxy_fails,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "serve_config.yaml"
SECRET = "redis://u:s3cret@127.0.0.1:6380/0"


def switchboard(config: dict[str, Any]) -> dict[str, Any]:
    application: dict[str, Any] = next(a for a in config["applications"] if a["name"] == "switchboard")
    return application


def write(folder: Path, **changes: Any) -> Path:
    """A configuration of one application."""
    application = {"name": "switchboard", "import_path": "graph:build", **changes}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}))
    return file


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
    schema = read(write(tmp_path, args={"served_log": {"folder": in_file}}))
    settle_here(schema, Namespace(port=1234, served_log=option, state=tmp_path), "redis://127.0.0.1:1/0")
    (args,) = (application.args for application in schema.applications)
    assert args["served_log"]["folder"] == (logged and logged.replace("STATE", str(tmp_path)))
    assert args["redis_url"] == "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("args", [{}, {"served_log": None}])
def test_the_arguments_of_another_builder_are_its_own(tmp_path: Path, args: dict[str, None]) -> None:
    schema = read(write(tmp_path, import_path="other:build", args=args))
    settle_here(schema, Namespace(port=1234, served_log=None, state=tmp_path), "redis://127.0.0.1:1/0")
    assert schema.applications[0].args == args
    assert redis_urls(schema) == set()


def test_an_address_with_a_password_is_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray logs the arguments."""
    monkeypatch.setenv("REDIS_URL", "")
    schema = read(write(tmp_path))
    settle_here(schema, Namespace(port=1234, served_log="off", state=tmp_path), SECRET)
    assert [application.args["redis_url"] for application in schema.applications] == ["$REDIS_URL"]
    assert os.environ["REDIS_URL"] == SECRET


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_two_applications_with_different_limits_of_the_store_are_refused(tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    switchboard(config)["args"]["store"]["max_screens"] = 7
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigurationError, match=r"store\.max_screens is 7 in switchboard and 5 in screen-events"):
        read(file)


def test_the_addresses_of_redis_in_a_file_are_known(tmp_path: Path) -> None:
    assert redis_urls(read(write(tmp_path, args={"redis_url": SECRET}))) == {SECRET}
    assert redis_urls(read(write(tmp_path))) == set()


def test_a_desk_of_no_product_is_named(tmp_path: Path) -> None:
    assert unknown_desks(read(write(tmp_path, args={"desks": {"loans": "lending", "lones": "lending"}}))) == {"lones"}
    assert unknown_desks(read(write(tmp_path, args={"desks": {"lones": "lending"}, "model": "none"}))) == set()


@pytest.mark.parametrize(
    ("content", "port"),
    [
        ("http_options: {port: 8123}", 8123),
        ("http_options: {port: many}", 8000),
        ("http_options: {port: 70000}", 8000),
        ("http_options:", 8000),
        ("", 8000),
        ("http_options: {", 8000),
    ],
)
def test_the_port_of_a_file_is_known_before_ray(tmp_path: Path, content: str, port: int) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert port_of(tmp_path / "config.yaml") == port
    assert port_of(tmp_path / "none.yaml") == 8000


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"args": {"redis_urls": SECRET}}, "args.redis_urls: Extra inputs are not permitted"),
        ({"args": {"redis_timeout_ms": SECRET}}, "args.redis_timeout_ms: Input should be a valid number"),
        ({"args": {"store": {"max_screen": SECRET}}}, "args.store.max_screen: Extra inputs are not permitted"),
        ({"args": {"served_log": None}}, "args.served_log: Input should be a valid dictionary"),
        ({"args": {"served_log": SECRET}}, "args.served_log: Input should be a valid dictionary"),
        ({"args": SECRET}, "args: Input should be a valid dictionary"),
        ({"import_path": "graph.build", "args": {"near": {"hop": 1}}}, "args.near.hop: Extra inputs"),
        ({"import_path": "graph:build_screen_events", "args": {"redis": SECRET}}, "args.redis: Extra inputs"),
        ({"deployments": [{"name": "Classifier"}, {"name": "Ingress", "user_config": {"max_batch": SECRET}}]},
         "deployments.1.user_config.max_batch: Input should be a valid integer"),
        ({"deployments": [{"name": "PredictionCache", "user_config": {"ttl": 5}}]},
         "deployments.0.user_config.ttl: Extra inputs are not permitted"),
        ({"deployments": [{"name": "Classifier"}, {"name": "Classifier", "num_replica": SECRET}]},
         "deployments.1.num_replica: no such setting, is num_replicas meant?"),
        ({"deployments": [{"name": "Classifier", "autoscaling_config": {"max_replica": SECRET}}]},
         "deployments.0.autoscaling_config.max_replica: no such setting, is max_replicas meant?"),
        ({"deployments": [{"name": "Classifier", "ray_actor_options": {"gpus": SECRET}}]},
         "deployments.0.ray_actor_options.gpus: no such setting, is num_gpus meant?"),
        ({"whatever": SECRET}, "whatever: no such setting"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_and_its_value_is_not(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: applications.0.{fault}")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (f"applications:\n  redis_url: {SECRET}: x\n", "mapping values are not allowed here, in line 2, column 47"),
        (f"applications: [{SECRET}\n", "while parsing a flow sequence, expected ',' or ']'"),
        ("at: 2026-99-99\n", "month must be in 1..12"),
        ("\a", "unacceptable character"),
        ("", "Input should be a valid dictionary"),
        ("applications: [{import_path: 'a:b', runtime_env: {working_dir: 5}}]", "path_or_uri must be a string"),
    ],
)
def test_what_is_no_configuration_is_told_without_its_lines(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {fault}")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_list_that_ray_shortens_is_taken(tmp_path: Path) -> None:
    logging = {"additional_log_standard_attrs": ["name", "name"]}
    assert read(write(tmp_path, logging_config=logging)).applications[0].name == "switchboard"


def test_a_setting_of_the_whole_file_that_ray_passes_over_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("http_option: {port: 1}\napplications: []\n")
    with pytest.raises(ConfigurationError, match=f"^{file}: http_option: no such setting, is http_options meant\\?$"):
        read(file)


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"^{tmp_path}/config.yaml: No such file or directory$"):
        read(tmp_path / "config.yaml")


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
@pytest.mark.parametrize("file", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_the_files_of_the_project_are_taken(file: str) -> None:
    assert [application.name for application in read(ROOT / file).applications] == ["switchboard", "screen-events"]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, "http://127.0.0.1:1234"),
        ({"route_prefix": "/support"}, "http://127.0.0.1:1234/support"),
        ({"route_prefix": None}, None),
        ({"name": "screen-events", "import_path": "graph:build_screen_events"}, None),
    ],
)
def test_where_the_service_is_asked_whether_it_is_ready(
    tmp_path: Path, changes: dict[str, Any], asked: str | None
) -> None:
    schema = read(write(tmp_path, **changes))
    settle_here(schema, Namespace(port=1234, served_log=None, state=tmp_path), "redis://127.0.0.1:1/0")
    assert address(schema) == asked


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "RuntimeError: HAProxy crashed during startup:\n[ALERT] (7) : Binding [/tmp/haproxy.cfg:50] for frontend "
            "http_frontend: cannot bind socket (Address already in use) for [127.0.0.1:8000]\n[ALERT] (7) : Exiting.",
            "HAProxy cannot listen on 127.0.0.1:8000 (Address already in use)",
        ),
        (
            "RuntimeError: HAProxy crashed during startup:\n[ALERT] (7) : [/haproxy.main()] Cannot raise FD limit to "
            "10267, limit is 256.\n",
            "HAProxy needs 10267 open files: raise the limit (ulimit -Hn), or use --proxy standard",
        ),
        ("Failed to bind\n  to address", "Failed to bind to address"),
    ],
)
def test_why_haproxy_fails_is_told_in_one_sentence(told: str, said: str) -> None:
    assert why_haproxy_fails(told) == said
