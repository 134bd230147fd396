"""The services that are compared: their configurations, their start and their end."""

import sys
from pathlib import Path

import psutil
import pytest

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


def test_the_number_of_classifiers_is_fixed() -> None:
    application = switchboard(configuration(lambda application: classifiers(application, 3)))
    (classifier,) = (d for d in application["deployments"] if d["name"] == "Classifier")
    assert classifier["num_replicas"] == 3
    assert "autoscaling_config" not in classifier


def test_the_ceiling_has_the_settings_of_the_ingress_and_no_other_deployment() -> None:
    ingress = next(
        d for d in switchboard(configuration(lambda application: None))["deployments"] if d["name"] == "Ingress"
    )
    config = configuration(nothing)
    (only,) = switchboard(config)["deployments"]
    assert only["ray_actor_options"] == ingress["ray_actor_options"]
    assert switchboard(config)["import_path"] == "loadtests.ceiling:build"
    assert config["logging_config"] == configuration(lambda application: None)["logging_config"]


def test_every_target_writes_what_it_needs_into_its_folder(tmp_path: Path) -> None:
    for target in all_targets():
        folder = tmp_path / target.name
        folder.mkdir()
        assert str(1234) in target.command(1234, folder)
    assert [path.parent.name for path in sorted(tmp_path.glob("*/*.yaml"))] == [
        "ceiling", "graph", "graph_inline", "graph_lean",
    ]  # fmt: skip


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


def test_a_target_that_ends_at_once_names_its_log(tmp_path: Path) -> None:
    target = Target("broken", "Broken", lambda port, folder: [sys.executable, "-c", "raise SystemExit(3)"], ("x", 1))
    with (
        pytest.raises(TargetError, match=r"Broken: ended with code 3; its log is .*/log"),
        running(target, NOWHERE, tmp_path),
    ):
        pass


def test_a_load_on_nobody_is_an_error() -> None:
    with pytest.raises(LoadError, match="ConnectionRefusedError"):
        generator.closed("built-in", 1, ["{}"], 1, Timing(1, 0))


def test_wrk_speaks_like_the_built_in_generator() -> None:
    line = {"requests": 100, "seconds": 2.0, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3, "not_2xx": 10, "dropped": 1}
    figures = from_wrk(line)
    assert (figures["per_second"], figures["failures"], figures["cached"]) == (45.0, 11, None)
