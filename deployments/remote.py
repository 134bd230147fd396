"""Where a stage runs, and how it is called there: in the caller's process, over a link, or through Ray's router."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ray import get_runtime_context
from ray.exceptions import RayError, RayTaskError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.link_server import Call
from deployments.links import LinkLost, Links, socket_name
from deployments.metrics import Exporter
from deployments.protocol import DependencyError
from deployments.request_meter import Metric

logger = logging.getLogger(__name__)
WhenDown = Literal["wait", "fail", "try"]
ELSEWHERE_S = 0.5
"""How long Ray's router may take when the replicas on this node have gone: without others it would wait for one."""
ROUTER = BreakerConfig(failures=1, pause_s=1.0)
StageRef = DeploymentHandle[Any] | Application | Callable[[], Call]
"""A stage to be built inline, or a deployment: an application in `graph.py`, a handle in a replica."""


def as_call(
    stage: StageRef, linked: bool, prefer: Literal["first", "last"] = "first", when_down: WhenDown = "wait"
) -> Call:
    """A stage as an async callable from batch to batch.

    Args:
        linked: whether replicas on this node are called through their sockets.
        prefer: see `Links`.
        when_down: see `Remote`.
    """
    if isinstance(stage, Application):
        raise TypeError("a stage is called before Ray Serve has deployed it")
    if not isinstance(stage, DeploymentHandle):
        return stage()
    pattern = socket_name(stage.app_name, stage.deployment_name)
    links = Links(socket_folder(), pattern, prefer=prefer) if linked else None
    # Batches are made of arrays and of classes that every replica can import: plain pickle, at half of the cost.
    handle = stage.options(request_serialization="pickle", response_serialization="pickle")
    return Remote(handle, links, when_down)


class Remote:
    """A stage that is a deployment of its own: through a link where there is one, else through Ray's router.

    Args:
        links: to the replicas on this node.
        when_down: what to do when the last replica on this node has just died or hangs: `wait` for Ray's router, which
            waits for the next one; `fail` at once, since the caller can do without; or `try`: ask Ray's router for at
            most `ELSEWHERE_S`, as another node may have a replica; after a failure only one batch per `ROUTER.pause_s`
            asks again, the others fail at once.

    Raises:
        DependencyError: the replica died, hangs, is overloaded or is not there.
    """

    def __init__(self, handle: DeploymentHandle[Any], links: Links | None = None, when_down: WhenDown = "wait") -> None:
        self._handle, self._links, self._when_down = handle, links, when_down
        self._elsewhere = CircuitBreaker(ROUTER)
        self._linked = self._routed = 0
        self._exporter: Exporter | None = None

    def counts(self) -> dict[Metric, float]:
        return {
            ("stage_calls_total", "way", "link"): self._linked,
            ("stage_calls_total", "way", "router"): self._routed,
        }

    async def __call__(self, batch: Any) -> Any:
        if self._exporter is None:
            self._exporter = Exporter(self)
            self._exporter.start()
        while self._links and (link := self._links.pick()) is not None:
            try:
                answer = await link.call(batch)
            except LinkLost:
                logger.info("%s: a replica has gone, calling again", self._handle.deployment_name)
            else:
                self._linked += 1
                self._elsewhere.succeeded()  # when this replica goes, other nodes may be asked at once
                return answer
        if self._links is None or self._when_down == "wait":
            return await self._through_router(batch)
        gone_everywhere = self._links.gone and self._elsewhere.open  # from other nodes, too, when last asked
        if self._links.down or gone_everywhere:
            return await self._while_down(batch)
        if self._when_down == "fail":
            return await self._until_death(batch, self._links)
        return await self._through_router(batch)

    async def _while_down(self, batch: Any) -> Any:
        """The answer of another node's replica, if one may be asked and there is one."""
        name = self._handle.deployment_name
        if self._when_down == "fail" or not self._elsewhere.allows():
            raise DependencyError(f"{name}: its replica has died or hangs")
        try:
            async with asyncio.timeout(ELSEWHERE_S):
                answer = await self._through_router(batch)
        except (DependencyError, TimeoutError):
            self._elsewhere.failed()
            raise DependencyError(f"{name}: its replica has died or hangs, and no other node has one") from None
        self._elsewhere.succeeded()
        return answer

    async def _until_death(self, batch: Any, links: Links) -> Any:
        """The router's answer, or an error when the last replica here dies: the router would wait for the next one."""
        call = asyncio.ensure_future(self._through_router(batch))
        try:
            with links.watching_for_death() as death:
                await asyncio.wait((call, death), return_when=asyncio.FIRST_COMPLETED)
            return call.result() if call.done() else await self._while_down(batch)
        finally:
            call.cancel()

    async def _through_router(self, batch: Any) -> Any:
        self._routed += 1
        try:
            return await self._handle.remote(batch)
        except RayTaskError:
            raise
        except (RayError, RayServeException) as error:
            raise DependencyError(f"{self._handle.deployment_name}: {type(error).__name__}") from error


def socket_folder() -> Path:
    """Where the replicas of this Ray session on this node have their sockets."""
    context = get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "links")
