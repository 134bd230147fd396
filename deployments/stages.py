"""The Ray Serve deployments: a few lines round each plain class.

A stage is described by a `functools.partial` of one of the factories below. Placed as a deployment, the
description travels to a replica of `Stage` and is built there; placed inline, its caller builds it.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import serve
from starlette.types import ASGIApp

from deployments import edge
from deployments.access import Access
from deployments.arguments import AppArgs
from deployments.autoscaling import Concurrency
from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.cache import CacheConfig, PredictionCache
from deployments.classify import ClassifyStage, PreprocessStage
from deployments.defects import log_defect
from deployments.flow_stages import FlowStages
from deployments.gather import FeatureGatherer
from deployments.ingress import Ingress, IngressConfig
from deployments.link_server import Call, LinkServer
from deployments.links import socket_name
from deployments.logs import log_with_serve
from deployments.metrics import Exporter
from deployments.near import Near
from deployments.remote import Remote, StageRef, as_call, socket_folder
from deployments.served import ServedLogConfig
from deployments.tracing import TracingConfig
from features.store import FeatureStore, StoreConfig, connect
from features.stream import IngesterConfig, ScreenIngester
from models.classifier import Device
from models.registry import Registry

if TYPE_CHECKING:
    from deployments.served_log import ServedLog
    from deployments.spans import Spans

logger = logging.getLogger(__name__)
GC_THRESHOLDS = (20_000, 20, 20)
"""Above Python's 700 objects, with which the garbage collector would look at each waiting message several times."""


def gatherer(redis_url: str, timeout_ms: float, store: StoreConfig, breaker: BreakerConfig) -> FeatureGatherer:
    """The gather stage, with a Redis connection of its own."""
    redis = connect(redis_url, timeout_ms / 1000)
    return FeatureGatherer(FeatureStore(redis, store), timeout_ms / 1000, CircuitBreaker(breaker))


def preprocessor(registry: str, version: str) -> PreprocessStage:
    """The preprocess stage, with one version loaded."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a batch is too short to share among threads
    bundles = Registry.at(registry)
    stage = PreprocessStage(lambda wanted: bundles.load(wanted).preprocessor)
    stage.table.preload(version)
    return stage


def classifier(registry: str, version: str, device: Device, threads: int) -> ClassifyStage:
    """The classify stage, with one version loaded and warm."""
    bundles = Registry.at(registry)
    stage = ClassifyStage(lambda wanted: bundles.load(wanted).classifier(device, threads))
    stage.table.preload(version)
    return stage


def prediction_cache(classify: StageRef, limits: CacheConfig, linked: bool) -> PredictionCache:
    """The cache stage in front of the classifiers."""
    return PredictionCache(as_call(classify, linked, when_down="try"), limits)


def served_log(config: ServedLogConfig) -> "ServedLog | None":
    """The served log, if one is configured; Arrow is loaded only then."""
    if config.folder is None:
        return None
    from deployments.served_log import ServedLog
    from deployments.served_rows import rows

    return ServedLog(config, rows)


def spans(config: TracingConfig) -> "Spans | None":
    """What traces requests, if a collector is configured; OpenTelemetry is loaded only then."""
    if config.endpoint is None:
        return None
    from deployments.spans import Spans

    return Spans(config.endpoint, config.share)


@contextmanager
def refusing(serves: bool) -> Iterator[None]:
    """Log invalid settings and keep the old ones: Ray kills every replica whose `reconfigure` raises.

    Raises:
        ValueError: the replica does not serve yet, so that the deploy fails.
    """
    try:
        yield
    except (ValueError, TypeError) as error:  # a TypeError: a key that is no text
        if not serves:
            raise
        logger.error("user_config is refused, and the settings before it stay: %s", " ".join(str(error).split()))


class Stage:
    """Any stage as a deployment."""

    def __init__(self, build: Callable[[], Call], linked: bool) -> None:
        gc.set_threshold(*GC_THRESHOLDS)
        self._server: LinkServer | None = None  # before what may fail, since `__del__` is called all the same
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stage, self._linked = build(), linked
        self._load = Concurrency()

    async def __call__(self, batch: Any) -> Any:
        with self._load:
            try:
                return await self._stage(batch)
            except Exception as error:
                log_defect(type(self._stage).__name__, error)
                raise

    async def check_health(self) -> None:
        """Ray asks before the first call, and then every few seconds: start what needs the running loop."""
        log_with_serve()
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        Exporter(self._stage).start()
        if self._linked:
            replica = serve.get_replica_context()
            name = socket_name(replica.app_name, replica.deployment, replica.replica_id.unique_id)
            server = LinkServer(self, socket_folder() / name)
            try:
                await server.start()
            except OSError as error:
                logger.warning("no link to this replica, calls take the handle: %s", error)
            else:
                self._server = server

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the policy `by_batches_in_flight` reads."""
        return self._load.read()

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply `user_config`; only the prediction cache has settings that change while it runs."""
        with refusing(serves=self._loop is not None):
            if not isinstance(self._stage, PredictionCache):
                raise ValueError(f"this stage takes no user_config, got {sorted(user_config)}")
            self._stage.configure(CacheConfig(**user_config))

    def __del__(self) -> None:
        """Ray calls this when a replica stops, after the calls that came through the handle."""
        if self._server is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._server.close)


@serve.ingress()
class IngressDeployment:
    """`Ingress` behind Ray's HTTP proxy; warms every stage before it says that it is ready.

    Args:
        version: of the bundle that `args.model` meant when the application was built.
        redis_url: where `args.redis_url` names an environment variable, what it held then.
        keys: digests of the API keys; without any, everybody may ask.
    """

    def __init__(self, stages: FlowStages, args: AppArgs, version: str, redis_url: str, keys: frozenset[bytes]) -> None:
        gc.set_threshold(*GC_THRESHOLDS)
        self._log, self._spans = served_log(args.served_log), spans(args.tracing)
        apart, flow = stages.flows(args)
        flow = replace(flow, record=self._log.record if self._log else None)
        calls = (flow.gather, flow.preprocess, flow.classify)
        self._parts: list[Any] = [call for call in calls if not isinstance(call, Remote)]  # a `Remote` exports itself
        self._parts += [part.here for part in self._parts if isinstance(part, Near)]
        if self._log:
            self._parts.append(self._log)
        bundles, publish_timeout_s = Registry.at(args.registry), args.publish_timeout_ms / 1000
        self._ingress = Ingress(
            flow,
            bundles.load(version),
            connect(redis_url, publish_timeout_s),
            on_stop=self._close,
            warm=apart,
            model=args.model,
            publish_timeout_s=publish_timeout_s,
            load=bundles.load,
            access=Access(keys),
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply new batching limits, and take note of the wanted candidate."""
        with refusing(serves=self._ingress.warm_up.begun):
            self._ingress.configure(IngressConfig(**user_config))

    async def check_health(self) -> None:
        """Ray asks every few seconds."""
        log_with_serve()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        log_with_serve()
        ingress = self._ingress
        its = (ingress.warm_up, ingress.requests, ingress.batcher, ingress.rollout, ingress.rollout.stages)
        for part in (ingress, *its, *self._parts):
            Exporter(part).start()
        loop = asyncio.get_running_loop()
        self._tasks |= {loop.create_task(run()) for run in (ingress.warm_up.until_ready, ingress.rollout.follow)}
        if self._spans is None:
            return self._ingress.app(found=edge.shorten)
        traced = self._spans.around
        return traced(self._ingress.app(found=lambda path, app: edge.shorten(path, traced(app))))

    def _close(self) -> None:
        """Bring what was recorded to where it belongs, after the last answer."""
        for part in (self._log, self._spans):
            if part is not None:
                part.close()


class ScreenEventsDeployment:
    """`ScreenIngester` under Ray Serve's supervision: no route, restarted when its task ends."""

    def __init__(self, redis_url: str, store: StoreConfig, ingester: IngesterConfig) -> None:
        redis = connect(redis_url, ingester.client_timeout_s)
        self._ingester = ScreenIngester(redis, FeatureStore(redis, store), ingester)
        self._task: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Start the task on the first call; fail when it has ended."""
        log_with_serve()
        if self._task is None:
            Exporter(self._ingester).start()
            self._task = asyncio.get_running_loop().create_task(self._ingester.run())
        elif self._task.done():
            raise RuntimeError("the ingester's task has ended") from self._task.exception()

    async def __call__(self) -> dict[str, int]:
        """Counters, for whoever holds a handle."""
        return {"stored": self._ingester.stored, "dead": self._ingester.dead, "lag_ms": self._ingester.lag}
