"""The Ray Serve deployments: a few lines round each plain class.

A stage is described by a `functools.partial` of one of the factories below. Placed as a deployment, the
description travels to a replica of `Stage` and is built there; placed inline, its caller builds it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments.cache import CacheConfig, PredictionCache
from deployments.classify import ClassifyStage, PreprocessStage
from deployments.flow import Flow
from deployments.gather import BreakerConfig, CircuitBreaker, FeatureGatherer
from deployments.ingress import BatchingConfig, Ingress
from deployments.metrics import Exporter
from deployments.protocol import DependencyError
from deployments.served import ServedLogConfig
from features.store import FeatureStore, StoreConfig, connect
from features.stream import IngesterConfig, ScreenIngester
from models.classifier import Device
from models.registry import Registry

if TYPE_CHECKING:
    from deployments.served_log import ServedLog

Call = Callable[[Any], Awaitable[Any]]
Placed = DeploymentHandle[Any] | Application | Callable[[], Call]
"""A stage to be built inline, or a deployment: an application in `graph.py`, a handle in a replica."""


def gatherer(redis_url: str, timeout_ms: float, store: StoreConfig, breaker: BreakerConfig) -> FeatureGatherer:
    """The gather stage, with a Redis connection of its own."""
    redis = connect(redis_url, timeout_ms / 1000)
    return FeatureGatherer(FeatureStore(redis, store), timeout_ms / 1000, CircuitBreaker(breaker))


def preprocessor(registry: str, version: str) -> PreprocessStage:
    """The preprocess stage, with one version loaded."""
    bundles = Registry(Path(registry))
    stage = PreprocessStage(lambda wanted: bundles.load(wanted).preprocessor)
    stage.table.preload(version)
    return stage


def classifier(registry: str, version: str, device: Device, threads: int) -> ClassifyStage:
    """The classify stage, with one version loaded and warm."""
    bundles = Registry(Path(registry))
    stage = ClassifyStage(lambda wanted: bundles.load(wanted).classifier(device, threads))
    stage.table.preload(version)
    return stage


def prediction_cache(classify: Placed, limits: CacheConfig) -> PredictionCache:
    """The cache stage in front of the classifier replicas."""
    return PredictionCache(as_call(classify), limits)


def served_log(config: ServedLogConfig) -> "ServedLog | None":
    """The served log, if one is configured; Arrow is loaded only then."""
    if config.folder is None:
        return None
    from deployments.served_log import ServedLog
    from deployments.served_rows import rows

    return ServedLog(config, rows)


def as_call(stage: Placed) -> Call:
    """A placed stage as an async callable from batch to batch."""
    if isinstance(stage, Application):
        raise TypeError("a stage is called before Ray Serve has deployed it")
    return Remote(stage) if isinstance(stage, DeploymentHandle) else stage()


class Remote:
    """A stage that is a deployment of its own.

    Raises:
        DependencyError: the replica died, is overloaded or is not there.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        # Batches are made of arrays and of classes that every replica can import: plain pickle, at half of the cost.
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def __call__(self, batch: Any) -> Any:
        try:
            return await self._handle.remote(batch)
        except RayTaskError:
            raise
        except (RayError, RayServeException) as error:
            raise DependencyError(f"{self._handle.deployment_name}: {type(error).__name__}") from error


class Stage:
    """Any stage as a deployment."""

    def __init__(self, build: Callable[[], Call]) -> None:
        self._stage = build()
        self._exporter: Exporter | None = None

    async def __call__(self, batch: Any) -> Any:
        if self._exporter is None:
            self._exporter = Exporter(self._stage)
            self._exporter.start()
        return await self._stage(batch)

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply `user_config`; only the prediction cache has settings that change while it runs."""
        if not isinstance(self._stage, PredictionCache):
            raise ValueError(f"this stage takes no user_config, got {sorted(user_config)}")
        self._stage.config = CacheConfig(**user_config)


@serve.ingress()
class IngressDeployment:
    """`Ingress` behind Ray's HTTP proxy; warms every stage before it says that it is ready."""

    def __init__(
        self,
        gather: Placed,
        preprocess: Placed,
        classify: Placed,
        registry: str,
        version: str,
        desks: Mapping[str, str],
        redis_url: str,
        publish_timeout_ms: float,
        gather_timeout_ms: float,
        served: ServedLogConfig,
    ) -> None:
        self._stages = stages = (as_call(gather), as_call(preprocess), as_call(classify))
        self._log = served_log(served)
        flow = Flow(*stages, desks, gather_timeout_ms / 1000, self._log.record if self._log else None)
        bundle = Registry(Path(registry)).load(version)
        on_stop = self._log.close if self._log else None
        self._ingress = Ingress(flow, bundle, connect(redis_url, publish_timeout_ms / 1000), on_stop=on_stop)
        self._tasks: set[asyncio.Task[None]] = set()

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply new batching limits."""
        self._ingress.configure(BatchingConfig(**user_config))

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        inline = [stage for stage in self._stages if not isinstance(stage, Remote)]
        for part in (self._ingress, self._ingress.batcher, self._log, *inline):
            if part is not None:
                Exporter(part).start()
        self._tasks.add(asyncio.get_running_loop().create_task(self._ingress.warm_until_ready()))
        return self._ingress.app()


class ScreenEventsDeployment:
    """`ScreenIngester` under Ray Serve's supervision: no route, restarted when its task ends."""

    def __init__(self, redis_url: str, store: StoreConfig, ingester: IngesterConfig) -> None:
        redis = connect(redis_url, ingester.block_ms / 1000 + 2.0)
        self._ingester = ScreenIngester(redis, FeatureStore(redis, store), ingester)
        self._task: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Start the task on the first call; fail when it has ended."""
        if self._task is None:
            Exporter(self._ingester).start()
            self._task = asyncio.get_running_loop().create_task(self._ingester.run())
        elif self._task.done():
            raise RuntimeError("the ingester's task has ended") from self._task.exception()

    async def __call__(self) -> dict[str, int]:
        """Counters, for whoever holds a handle."""
        return {"stored": self._ingester.stored, "dead": self._ingester.dead, "lag_ms": self._ingester.lag}
