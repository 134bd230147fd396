"""The services that are compared: their configurations, their start and their end."""

import os
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from loadtests import generator
from loadtests.generator import LoadError, Timing, from_wrk
from loadtests.targets import (
    Target,
    TargetError,
    all_targets,
    classifiers,
    configuration,
    inline,
    nothing,
    reflector,
    running,
    switchboard,
    variants,
)

NOWHERE = "redis://127.0.0.1:1/0"


def test_inline_stages_are_no_deployments() -> None:
    application = switchboard(configuration(lambda application: inline(application, "gather", "cache")))
    placed = [application["args"][stage] for stage in ("gather", "preprocess", "cache")]
    assert placed == ["inline", "deployment", "inline"]
    assert {deployment["name"] for deployment in application["deployments"]} == {
        "Ingress",
        "Preprocessor",
        "Classifier",
    }


def test_with_all_stages_inline_there_is_an_ingress_for_each_core(tmp_path: Path) -> None:
    (whole,) = (target for target in variants() if target.name == "graph_whole")
    whole.command(1234, tmp_path)
    application = switchboard(yaml.safe_load((tmp_path / "serve_config.yaml").read_text()))
    (ingress,) = application["deployments"]
    assert (ingress["name"], ingress["num_replicas"]) == ("Ingress", max(2, os.cpu_count() or 1))
    assert {application["args"][stage] for stage in ("gather", "preprocess", "cache", "classify")} == {"inline"}


def test_the_number_of_classifiers_is_fixed() -> None:
    application = switchboard(configuration(lambda application: classifiers(application, 3)))
    (classifier,) = (d for d in application["deployments"] if d["name"] == "Classifier")
    assert classifier["num_replicas"] == 3
    assert "autoscaling_config" not in classifier


def test_the_ceiling_has_the_settings_of_the_ingress_and_no_other_deployment() -> None:
    ingress = next(d for d in switchboard(configuration())["deployments"] if d["name"] == "Ingress")
    config = configuration(nothing)
    (only,) = switchboard(config)["deployments"]
    assert only["ray_actor_options"] == ingress["ray_actor_options"]
    assert switchboard(config)["import_path"] == "loadtests.ceiling:build"
    assert config["logging_config"] == configuration()["logging_config"]


def test_every_target_writes_what_it_needs_into_its_folder(tmp_path: Path) -> None:
    for target in all_targets():
        folder = tmp_path / target.name
        folder.mkdir()
        assert str(1234) in target.command(1234, folder)
    assert [path.parent.name for path in sorted(tmp_path.glob("*/*.yaml"))] == [
        "ceiling", "graph", "graph_inline", "graph_lean",
    ]  # fmt: skip


def test_no_served_log_is_written(tmp_path: Path) -> None:
    """The service by hand writes none."""
    commands = [target.command(1234, tmp_path) for target in all_targets()]
    served = [command for command in commands if "--config" in command]
    assert len(served) == 4
    assert {command[command.index("--served-log") + 1] for command in served} == {"off"}


@pytest.mark.parametrize("replicas", [1, 1 + (os.cpu_count() or 1)])
def test_the_service_by_hand_has_a_worker_for_each_core_and_classifier(replicas: int, tmp_path: Path) -> None:
    wanted = max(replicas, os.cpu_count() or 1)
    by_hand = [target for target in [*all_targets(replicas), *variants(replicas)] if "TEXT_CACHE" in target.environment]
    assert [target.name for target in by_hand] == ["fastapi", "fastapi_lru", "fastapi_inline"]
    for target in by_hand:
        command = target.command(1234, tmp_path)
        assert command[command.index("--workers") + 1] == str(wanted)
        assert target.ready[1] == wanted
        assert target.title.endswith(f", {wanted} workers")


def test_a_target_is_loaded_and_ended(tmp_path: Path) -> None:
    with running(reflector(), NOWHERE, tmp_path) as service:
        sent = [f'{{"text": "{i}"}}' for i in range(40)]
        figures, answers = generator.answered(service.port, sent, Timing(60, 0), clients=4)
        assert (figures["requests"], figures["failures"], len(answers)) == (40, 0, 40)
        assert {body for body, _, _ in answers} == set(sent)
        assert generator.closed("built-in", service.port, sent, 2, Timing(60, 0))["requests"] == 40
        _, paced = generator.answered(service.port, sent, Timing(60, 0), rate=1000)
        assert len(paced) == 40
        assert service.memory_mib() > 1
    assert not psutil.pid_exists(service.process.pid)


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("print(*range(20), sep='\\n\\n'); raise SystemExit('no port')",
         "its log ends with\n  13\n  14\n  15\n  16\n  17\n  18\n  19\n  no port"),
        ("raise SystemExit(1)", "its log is empty"),
    ],
)  # fmt: skip
def test_a_target_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path, script: str, ending: str) -> None:
    """Its folder is gone when somebody reads the message."""
    target = Target("broken", "Broken", lambda port, folder: [sys.executable, "-c", script], ("x", 1))
    with pytest.raises(TargetError) as caught, running(target, NOWHERE, tmp_path):
        pass
    assert str(caught.value) == f"Broken: ended with code 1; {ending}"


def test_a_load_on_nobody_is_an_error() -> None:
    with pytest.raises(LoadError, match="ConnectionRefusedError"):
        generator.closed("built-in", 1, ["{}"], 1, Timing(1, 0))


@pytest.fixture
def with_wrk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with nothing but a program of that name, which prints its length of a load as its seconds."""
    wrk = tmp_path / "wrk"
    figures = '"requests": 1, "seconds": %s, "p50_ms": 1, "p90_ms": 1, "p99_ms": 1, "not_2xx": 0, "dropped": 0'
    wrk.write_text(f"#!{sys.executable}\nimport sys\nprint('{{{figures}}}' % sys.argv[3][2:-1])\n")
    wrk.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("with_wrk")
def test_wrk_gets_the_seconds_that_were_asked_for() -> None:
    assert [generator.chosen("auto", seconds) for seconds in (2.0, 1.5)] == ["wrk", "built-in"]
    assert generator.chosen("wrk", 3) == "wrk"
    assert generator.closed("wrk", 1, ["{}"], 1, Timing(3.0, 0))["seconds"] == 3
    with pytest.raises(LoadError, match=r"wrk takes whole seconds, not 1\.5: change --seconds"):
        generator.chosen("wrk", 1.5)


def test_wrk_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert generator.chosen("auto", 2.0) == generator.chosen("built-in", 1.5) == "built-in"
    with pytest.raises(LoadError, match="wrk is not on the PATH"):
        generator.chosen("wrk", 2.0)


def test_wrk_speaks_like_the_built_in_generator() -> None:
    line = {"requests": 100, "seconds": 2.0, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3, "not_2xx": 10, "dropped": 1}
    figures = from_wrk(line)
    assert (figures["per_second"], figures["failures"], figures["cached"]) == (45.0, 11, None)
