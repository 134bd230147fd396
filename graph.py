"""The topology of Switchboard, one nested expression: `serve deploy serve_config.yaml` builds it from here."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from deployments.access import digests
from deployments.arguments import AppArgs, Placement, ScreenEventsArgs
from deployments.flow_stages import FlowStages
from deployments.remote import StageRef
from deployments.stages import (
    IngressDeployment,
    ScreenEventsDeployment,
    Stage,
    classifier,
    gatherer,
    prediction_cache,
    preprocessor,
)
from models.classifier import require_device
from models.registry import Registry

HEALTH: dict[str, Any] = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
"""A replica that died is missed within two seconds instead of Ray's ten; one that hangs, after three checks of ten
seconds instead of thirty. Each has its own event loop, which no inference of length occupies. The configuration file
may say otherwise for a deployment."""


def _stage(name: str, placement: Placement, build: Callable[[], Any], args: AppArgs) -> StageRef:
    """A stage as a deployment of its own; if it is placed inline, just `build`, which its caller calls."""
    if placement == "inline":
        return build
    return serve.deployment(name=name, max_ongoing_requests=64, **HEALTH)(Stage).bind(build, args.links)


def _require_gpu(args: AppArgs) -> None:
    """Refuse now what Ray would wait for without end: a replica with a GPU on a cluster that has none."""
    if not args.await_gpu and not ray.cluster_resources().get("GPU"):  # type: ignore[no-untyped-call]
        raise RuntimeError(
            "device 'cuda': no node of this Ray cluster has a GPU; use serve_config.yaml for CPUs, "
            "or set await_gpu: true where an autoscaler brings GPU nodes"
        )


def _served_version(args: AppArgs) -> str:
    """The version that the model's name means now, once it is certain that the device can run it; see `build`."""
    require_device(args.device)
    if args.device == "cuda":
        _require_gpu(args)
    bundle = Registry.at(args.registry).load(args.model)
    require_device(args.device, bundle.path / "text.onnx")
    return bundle.version


def _from_environment(setting: str, value: str) -> str:
    """The value itself, or what the environment variable `$NAME` holds where the application is built."""
    name = value.removeprefix("$")
    if name == value:
        return value
    if not os.environ.get(name):
        raise RuntimeError(f"{setting}: the environment variable {name} is not set where Ray builds the application")
    return os.environ[name]


def _keys(args: AppArgs) -> frozenset[bytes]:
    """The digests of the API keys, none if everybody may ask."""
    if args.api_keys is None:
        return frozenset()
    try:
        return digests(_from_environment("api_keys", args.api_keys))
    except ValueError as error:
        raise RuntimeError(f"api_keys: {args.api_keys}, {error}") from None


def build(args: AppArgs) -> Application:
    """HTTP → Ingress → FeatureGatherer, Preprocessor → PredictionCache → Classifier replicas.

    Raises:
        BundleError: the bundle must not be served.
        RuntimeError: `device: cuda` without a GPU, without its provider, or with a network for CPUs; an environment
            variable that `redis_url` or `api_keys` names is not set, or holds no keys.
    """
    version, redis_url = _served_version(args), _from_environment("redis_url", args.redis_url)
    gather = partial(gatherer, redis_url, args.redis_timeout_ms, args.store, args.breaker)
    preprocess = partial(preprocessor, args.registry, version)
    classify = partial(classifier, args.registry, version, args.device, args.threads)
    classifiers = _stage("Classifier", args.classify, classify, args)
    cached = partial(prediction_cache, classifiers, args.cache_limits, args.links)
    nearby: dict[str, Callable[[], Any]] = {"gather": gather, "preprocess": preprocess}
    past_cache = args.near.past_cache and (args.cache, args.classify) == ("deployment", "deployment")
    ingress = serve.deployment(name="Ingress", max_ongoing_requests=4096, **HEALTH)(IngressDeployment)
    stages = FlowStages(
        gather=_stage("FeatureGatherer", args.gather, gather, args),
        preprocess=_stage("Preprocessor", args.preprocess, preprocess, args),
        classify=_stage("PredictionCache", args.cache, cached, args),
        here={stage: nearby[stage] for stage in nearby if args.near.hop_from and getattr(args, stage) == "deployment"},
        uncached=classifiers if past_cache else None,
    )
    return ingress.bind(stages, args, version, redis_url, _keys(args))


def build_screen_events(args: ScreenEventsArgs) -> Application:
    """The stream ingester, supervised, without a route.

    Raises:
        RuntimeError: `redis_url` names an environment variable that is not set.
    """
    ingester = serve.deployment(name="ScreenEvents", **HEALTH | {"health_check_period_s": 1.0})(ScreenEventsDeployment)
    return ingester.bind(_from_environment("redis_url", args.redis_url), args.store, args.ingester)
