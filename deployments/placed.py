"""Where a stage runs, and how it is called there: in the caller's process, over a link, or through Ray's router."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ray import get_runtime_context
from ray.exceptions import RayError, RayTaskError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.link_server import Call
from deployments.links import LinkLost, Links, socket_name
from deployments.metrics import Exporter
from deployments.protocol import DependencyError
from deployments.request_meter import Metric

logger = logging.getLogger(__name__)
Placed = DeploymentHandle[Any] | Application | Callable[[], Call]
"""A stage to be built inline, or a deployment: an application in `graph.py`, a handle in a replica."""


def as_call(stage: Placed, linked: bool, prefer: Literal["first", "last"] = "first", replaceable: bool = False) -> Call:
    """A placed stage as an async callable from batch to batch.

    Args:
        linked: whether replicas on this node are called through their sockets.
        prefer: see `Links`.
        replaceable: see `Remote`.
    """
    if isinstance(stage, Application):
        raise TypeError("a stage is called before Ray Serve has deployed it")
    return Remote(stage, linked, prefer, replaceable) if isinstance(stage, DeploymentHandle) else stage()


class Remote:
    """A stage that is a deployment of its own: through a link where there is one, else through Ray's router.

    Args:
        replaceable: whether the caller can do without the stage, or must not wait for it: then it is an error at once
            when the last replica has just died or hangs, where Ray's router would wait until there is another one.

    Raises:
        DependencyError: the replica died, hangs, is overloaded or is not there.
    """

    def __init__(
        self, handle: DeploymentHandle[Any], linked: bool, prefer: Literal["first", "last"], replaceable: bool
    ) -> None:
        # Batches are made of arrays and of classes that every replica can import: plain pickle, at half of the cost.
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")
        pattern = socket_name(handle.app_name, handle.deployment_name)
        self._links = Links(socket_folder(), pattern, prefer=prefer) if linked else None
        self._replaceable = replaceable
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
                return answer
        if self._replaceable and self._links and self._links.down:
            raise DependencyError(f"{self._handle.deployment_name}: its replica has died or hangs")
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
