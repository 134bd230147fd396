"""The stages that the ingress calls, wherever they run, and the flows that are made of them."""

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
    """The stages that the ingress calls. A deployment is an application in `graph.py` and arrives here as a handle."""

    gather: StageRef
    preprocess: StageRef
    classify: StageRef
    """The prediction cache in front of the classifiers."""
    here: Mapping[str, Callable[[], Call]]
    """How to build `gather` and `preprocess` in the ingress, for those that are deployments; see `near`."""
    uncached: StageRef | None
    """The classifiers themselves, for batches that go past the cache; None where none does. See `CacheBypass`."""

    def flows(self, args: AppArgs) -> tuple[Flow, Flow]:
        """Two flows: one calls every stage where it is placed, the other saves hops by `Near` and `CacheBypass`."""
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
