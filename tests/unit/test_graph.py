"""Application arguments and the configuration file that sets them."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from local_redis import PORT
from pydantic import BaseModel, ValidationError
from ray.serve._private.build_app import build_app

from deployments.arguments import AppArgs, ScreenEventsArgs
from deployments.autoscaling import by_batches_in_flight
from deployments.cache import CacheConfig
from deployments.ingress import IngressConfig
from features.store import LOCAL_URL
from graph import build, build_screen_events
from models.bundle import Bundle
from models.registry import Registry

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
APPLICATIONS = {application["name"]: application for application in CONFIG["applications"]}
SECRET = "redis://u:s3cret@127.0.0.1:6380/0"
DEPLOYMENTS = {d["name"]: d for a in CONFIG["applications"] for d in a["deployments"]}


def _unset(model: BaseModel, values: dict[str, Any], within: str = "") -> set[str]:
    """Settings of a model, nested ones too, that a mapping leaves out."""
    missing = {within + name for name in type(model).model_fields if name not in values}
    for name, part in model:
        if isinstance(part, BaseModel) and name in values:
            missing |= _unset(part, values[name], f"{within}{name}.")
    return missing


def test_the_file_sets_every_argument() -> None:
    """But the registry, which is the project's own."""
    args, events = (APPLICATIONS[name]["args"] for name in ("switchboard", "screen-events"))
    assert _unset(AppArgs(**args), args) == {"registry"}
    assert _unset(ScreenEventsArgs(**events), events) == {"store"}


@pytest.mark.parametrize("file", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_every_part_looks_for_the_redis_that_a_laptop_has(file: str) -> None:
    config = yaml.safe_load((ROOT / file).read_text())
    assert {application["args"]["redis_url"] for application in config["applications"]} == {LOCAL_URL}
    assert urlsplit(LOCAL_URL).port == PORT


def test_a_deploy_finds_room_on_two_cpus() -> None:
    """Beside all replicas, two ingresses among them: a new one must start before an old one stops."""
    shares = {name: deployment["ray_actor_options"]["num_cpus"] for name, deployment in DEPLOYMENTS.items()}
    scaled = {
        name: d["autoscaling_config"]["max_replicas"] for name, d in DEPLOYMENTS.items() if "num_replicas" not in d
    }
    replicas = dict.fromkeys(shares, 1) | {"Ingress": 2} | scaled
    assert replicas["Classifier"] == 2
    taken = sum(share * replicas[name] for name, share in shares.items())
    assert taken + max(shares.values()) <= 2


@pytest.mark.parametrize(
    ("cache", "classify", "deployed", "past_cache"),
    [
        ("deployment", "deployment", {"PredictionCache", "Classifier"}, True),
        ("deployment", "inline", {"PredictionCache"}, False),
        ("inline", "deployment", {"Classifier"}, False),
        ("inline", "inline", set(), False),
    ],
)
def test_an_inline_stage_is_no_deployment(cache: str, classify: str, deployed: set[str], past_cache: bool) -> None:
    """And where the cache has the classifier to itself, none goes past it."""
    application: Any = build(AppArgs.model_validate({"cache": cache, "classify": classify}))
    names = {deployment.name for deployment in build_app(application, name="app").deployments}
    assert names == {"Ingress", "FeatureGatherer", "Preprocessor"} | deployed
    assert (application._bound_deployment.init_args[0].uncached is not None) == past_cache


def test_a_replica_that_is_gone_is_soon_missed() -> None:
    """Ray asks every ten seconds whether one is alive, and waits three times thirty for one that hangs."""
    for application in (build(AppArgs()), build_screen_events(ScreenEventsArgs())):
        for deployment in build_app(application, name="app").deployments:
            config = deployment._deployment_config
            assert (config.health_check_period_s <= 2, config.health_check_timeout_s) == (True, 10)


def test_the_gpu_file_is_taken() -> None:
    gpu: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text())
    application = {a["name"]: a for a in gpu["applications"]}["switchboard"]
    AppArgs(**application["args"])
    IngressConfig(**{d["name"]: d for d in application["deployments"]}["Ingress"]["user_config"])


def test_the_file_names_every_deployment_with_its_cpus() -> None:
    assert set(DEPLOYMENTS) == {
        "Ingress", "FeatureGatherer", "Preprocessor", "PredictionCache", "Classifier", "ScreenEvents",
    }  # fmt: skip
    assert all(d["ray_actor_options"]["num_cpus"] > 0 for d in DEPLOYMENTS.values())
    assert DEPLOYMENTS["Classifier"]["autoscaling_config"]["min_replicas"] == 1


@pytest.mark.parametrize("file", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_what_scales_is_told_by_its_replicas(file: str) -> None:
    """Ray's own policy does not see the batches that come over links."""
    config = yaml.safe_load((ROOT / file).read_text())
    scaled = [d for a in config["applications"] for d in a["deployments"] if "autoscaling_config" in d]
    assert [d["name"] for d in scaled] == ["Classifier"]
    policy = scaled[0]["autoscaling_config"]["policy"]["policy_function"]
    assert policy == f"{by_batches_in_flight.__module__}:{by_batches_in_flight.__name__}"


def test_user_configs_are_complete() -> None:
    assert set(DEPLOYMENTS["Ingress"]["user_config"]) == set(IngressConfig.model_fields)
    assert set(DEPLOYMENTS["PredictionCache"]["user_config"]) == set(CacheConfig.model_fields)
    IngressConfig(**DEPLOYMENTS["Ingress"]["user_config"])
    CacheConfig(**DEPLOYMENTS["PredictionCache"]["user_config"])


def test_each_product_of_the_default_bundle_has_a_desk() -> None:
    bundle: Bundle = Registry().load("production")
    assert set(APPLICATIONS["switchboard"]["args"]["desks"]) == set(bundle.manifest.labels)


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ({"redis_timeout": 5}, "redis_timeout"),
        ({"redis_timeout_ms": "soon"}, "redis_timeout_ms"),
        ({"gather": "elsewhere"}, "gather"),
        ({"store": {"max_screen": 3}}, "store.max_screen"),
        ({"breaker": {"failures": 0}}, "breaker.failures"),
    ],
)
def test_unknown_and_ill_typed_keys_are_named(args: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AppArgs(**args)
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == key


@pytest.mark.parametrize("model", [AppArgs, ScreenEventsArgs])
@pytest.mark.parametrize("args", [{"redis_urls": SECRET}, {"redis_url": [SECRET]}, {"store": {"redis_url": SECRET}}])
def test_an_error_does_not_show_what_may_be_a_password(model: type[BaseModel], args: dict[str, Any]) -> None:
    """Ray logs it, and `serve status` shows it."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(args)
    assert "s3cret" not in str(caught.value)


def test_both_applications_use_the_same_store() -> None:
    """A difference would be read and written in different places, silently."""
    first, second = (
        ScreenEventsArgs(**APPLICATIONS["screen-events"]["args"]),
        AppArgs(**APPLICATIONS["switchboard"]["args"]),
    )
    assert first.redis_url == second.redis_url
    assert first.store == second.store


def test_an_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray logs the arguments of an application; the address may hold a password."""
    with pytest.raises(RuntimeError, match="BANK_REDIS is not set"):
        build_screen_events(ScreenEventsArgs(redis_url="$BANK_REDIS"))
    monkeypatch.setenv("BANK_REDIS", SECRET)
    application = build_screen_events(ScreenEventsArgs(redis_url="$BANK_REDIS"))
    assert application._bound_deployment.init_args[0] == SECRET
