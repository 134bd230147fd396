"""Where the stages of the flow run, and the flow made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from deployments.arguments import AppArgs
from deployments.cache_bypass import CacheBypass
from deployments.flow import Flow
from deployments.link_server import Call
from deployments.near import near
from deployments.remote import StageRef, as_call


@dataclass(frozen=True, slots=True)
class FlowStages:
    """What the ingress calls: deployments in `graph.py`, of which Ray makes handles on their way to a replica."""

    gather: StageRef
    preprocess: StageRef
    classify: StageRef
    """The prediction cache in front of the classifiers."""
    here: Mapping[str, Callable[[], Call]]
    """`gather` and `preprocess`, where they are deployments whose work the ingress may do itself; see `near`."""
    uncached: StageRef | None
    """The classifiers themselves, for texts that are spared the hop to the cache; see `CacheBypass`."""

    def flows(self, args: AppArgs) -> tuple[Flow, Flow]:
        """The flow that calls every stage where it is placed; and the same, spared what costs more than it saves."""
        classify = as_call(self.classify, args.links, when_down="wait" if self.uncached is None else "fail")
        apart = Flow(
            as_call(self.gather, args.links, when_down="fail" if "gather" in self.here else "wait"),
            as_call(self.preprocess, args.links, when_down="fail" if "preprocess" in self.here else "wait"),
            classify,
            args.desks,
            args.gather_timeout_ms / 1000,
        )
        sparing = replace(
            apart,
            gather=near(apart.gather, self.here.get("gather"), args.near),
            preprocess=near(apart.preprocess, self.here.get("preprocess"), args.near),
        )
        if self.uncached is None:
            return apart, sparing
        classifiers = as_call(self.uncached, args.links, prefer="last", when_down="try")
        return apart, replace(sparing, classify=CacheBypass(classify, classifiers))
