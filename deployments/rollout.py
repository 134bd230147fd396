"""A second model beside the present one: for a share of the users, or in the shadow, where nobody sees its answers.

Stages are addressed by model version, so a candidate needs no replica, no route and no cache of its own: it is another
version in some of the batches. It answers nobody before every stage has answered a test message with it. Messages that
it fails go to the present model, and then it gets no messages for a while. It can be changed while the service runs.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field

from deployments.breaker import BreakerConfig, CircuitBreaker
from deployments.deadline import deadline
from deployments.defects import log_defect
from deployments.detached import detached
from deployments.flow import Answer, Flow
from deployments.protocol import Query
from deployments.request_meter import Metric, StageMeter
from models.bundle import Bundle

logger = logging.getLogger(__name__)
RETRY_S = 5.0
"""Between attempts to prepare a candidate."""
CANDIDATE_TIMEOUT_S = 1.0
"""Half of the default deadline, so that the present model has the other half where the candidate fails."""
BLAME_SHARE = 0.25
"""A candidate cancelled at the callers' deadline counts as failed only if it had this share of its time-out."""
CANDIDATE_BREAKER = BreakerConfig(failures=1, pause_s=10.0)
"""A candidate that failed gets one batch in ten seconds, since it may hold up a batch for the whole time-out."""
LOOK_EVERY_S = 0.5
"""How often what is wanted is compared with what there is."""
_HASH_VALUES = 2**32
Answers = list[Answer | Exception]
State = Literal["loading", "ready", "failed"]


class CandidateConfig(BaseModel):
    """A model that is tried beside the present one. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """Name or version of a bundle in the registry."""
    share: float = Field(default=0.0, ge=0, le=1)
    """Share of the users whom it answers: always the same users, and more beside them when the share is raised."""
    shadow: bool = False
    """Whether it also classifies messages that the present model answered, to compare both; left out under load."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The wanted candidate and its state.

    Attributes:
        bundle: once it is loaded.
        reason: why it failed.
    """

    config: CandidateConfig
    state: State
    bundle: Bundle | None = None
    reason: str | None = None

    def summary(self) -> dict[str, str | float | bool]:
        """What `GET /v1/models` tells of it, beside its bundle."""
        why = {"reason": self.reason} if self.reason else {}
        return {"state": self.state, "share": self.config.share, "shadow": self.config.shadow, **why}


class Rollout:
    """Answers batches with the present model, and with the candidate where that is wanted.

    Args:
        flow: the stages.
        present: the model that answers whom the candidate does not.
        load: name or version to a bundle; blocks.
        warm: sends a batch of a model through every stage, wherever it may run; raises while a stage does not answer.
        timeout_s: how long a candidate may take before the present model answers instead.
        breaker: when a candidate that fails is left alone.
    """

    def __init__(
        self,
        flow: Flow,
        present: Bundle,
        load: Callable[[str], Bundle],
        warm: Callable[[Bundle], Awaitable[None]],
        timeout_s: float = CANDIDATE_TIMEOUT_S,
        breaker: BreakerConfig = CANDIDATE_BREAKER,
    ) -> None:
        self.present = present
        self.wanted: CandidateConfig | None = None
        self.candidate: Candidate | None = None
        self._flow, self._unseen = flow, replace(flow, record=None)
        self._load, self._warm, self.timeout_s = load, warm, timeout_s
        self._breaker = CircuitBreaker(breaker)
        self.stages = StageMeter()
        self._answers = dict[str, int]()
        self._failed = self._compared = self._differed = self._left_out = 0
        self._shadow: asyncio.Task[None] | None = None

    async def follow(self, every_s: float = LOOK_EVERY_S, retry_s: float = RETRY_S) -> None:
        """Prepare whatever candidate is wanted, again and again while that fails; never returns."""
        loop = asyncio.get_running_loop()
        tried: CandidateConfig | None = None
        again_at = math.inf
        while True:
            if self.wanted != tried or loop.time() >= again_at:
                tried = self.wanted
                await self.prepare()
                failed = self.candidate is not None and self.candidate.state == "failed"
                again_at = loop.time() + retry_s if failed else math.inf
            await asyncio.sleep(every_s)

    async def prepare(self) -> None:
        """Make `candidate` what is wanted: load it and warm every stage, unless only its share or shadow changed."""
        wanted, now = self.wanted, self.candidate
        if wanted is None:
            self.candidate = None
        elif now is not None and now.state == "ready" and now.config.model == wanted.model:
            self.candidate = replace(now, config=wanted)
        else:
            self.candidate = Candidate(wanted, "loading")
            try:
                bundle = await asyncio.to_thread(self._load, wanted.model)
                if bundle.version == self.present.version:
                    raise ValueError(f"{wanted.model} is {bundle.version}, which is the present model")
                await self._warm(bundle)
            except Exception as error:
                self.candidate = Candidate(wanted, "failed", reason=str(error) or type(error).__name__)
                if self.candidate != now:  # else the same is said of every try
                    logger.warning("candidate %s: %s", wanted.model, self.candidate.reason)
            else:
                self._breaker.succeeded()
                self.candidate = None
                if self.wanted is not None and self.wanted.model == wanted.model:
                    self.candidate = Candidate(self.wanted, "ready", bundle)

    async def answer(self, queries: Sequence[Query]) -> Answers:
        """For each query, in order, an answer, or the error that prevented it."""
        candidate = self.candidate
        if candidate is None or candidate.bundle is None:
            return await self._by_present(queries)
        share = candidate.config.share
        chosen = {i for i, query in enumerate(queries) if _chosen(query, candidate.bundle.version, share)}
        if not chosen or not self._breaker.allows():
            chosen = set()
            answers = await self._by_present(queries)
        else:
            answers = await self._divided(queries, chosen, candidate.bundle)
        if candidate.config.shadow:
            self._begin_shadow([i for i in range(len(queries)) if i not in chosen], queries, answers, candidate.bundle)
        return answers

    def counts(self) -> dict[Metric, float]:
        answers: dict[Metric, float] = {("answers_total", "model", of): n for of, n in self._answers.items()}
        return answers | {
            "candidate_failures_total": self._failed,
            "shadow_compared_total": self._compared,
            "shadow_differed_total": self._differed,
            "shadow_left_out_total": self._left_out,
        }

    def levels(self) -> dict[Metric, float]:
        return {"candidate_ready": float(self.candidate is not None and self.candidate.state == "ready")}

    async def _divided(self, queries: Sequence[Query], chosen: set[int], bundle: Bundle) -> Answers:
        """Answers of the candidate to the chosen queries, and of the present model to others and to what it failed."""
        by_present, by_candidate = await asyncio.gather(
            self._some_by_present(queries, [i for i in range(len(queries)) if i not in chosen]),
            self._tried_by(bundle, queries, sorted(chosen)),
        )
        failed = sorted(chosen - by_candidate.keys())
        self._failed += len(failed)
        answers = by_present | by_candidate | await self._some_by_present(queries, failed)
        return [answers[i] for i in range(len(queries))]

    async def _by_present(self, queries: Sequence[Query]) -> Answers:
        answers = await self._flow.answer(queries, self.present)
        self._count(answers, self.present)
        return answers

    async def _some_by_present(self, queries: Sequence[Query], numbers: Sequence[int]) -> dict[int, Answer | Exception]:
        """Answers of the present model to some queries; where it fails, only these have an error."""
        if not numbers:
            return {}
        try:
            answers = await self._by_present([queries[i] for i in numbers])
        except Exception as error:
            return dict.fromkeys(numbers, error)
        return dict(zip(numbers, answers, strict=True))

    async def _tried_by(
        self, bundle: Bundle, queries: Sequence[Query], numbers: Sequence[int]
    ) -> dict[int, Answer | Exception]:
        """The candidate's answers by number; queries that it fails are left out."""
        began = time.monotonic()
        try:
            answers = await self._within_timeout(self._flow, [queries[i] for i in numbers], bundle)
        except asyncio.CancelledError:  # at the deadline of those who wait
            if time.monotonic() - began >= self.timeout_s * BLAME_SHARE:
                self._failed += len(numbers)
                self._leave_alone(bundle, "no answer by the deadline")
            raise
        self._count(answers, bundle)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors:
            self._leave_alone(bundle, type(errors[0]).__name__)
        elif self._breaker.succeeded():
            logger.warning("candidate %s answers again", bundle.version)
        return {i: answer for i, answer in zip(numbers, answers, strict=True) if isinstance(answer, Answer)}

    def _leave_alone(self, bundle: Bundle, reason: str) -> None:
        """Note a failure, and log the one from which on the candidate gets no messages."""
        if self._breaker.failed():
            logger.warning("candidate %s: %s; the present model answers", bundle.version, reason)

    async def _within_timeout(self, flow: Flow, queries: Sequence[Query], bundle: Bundle) -> Answers:
        """The answers of a flow, all of them errors where it fails or takes too long."""
        try:
            async with deadline(asyncio.get_running_loop().time() + self.timeout_s):
                return await flow.answer(queries, bundle)
        except Exception as error:
            log_defect(f"candidate {bundle.version}", error)
            return [error] * len(queries)

    def _count(self, answers: Answers, bundle: Bundle) -> None:
        given = [answer for answer in answers if isinstance(answer, Answer)]
        self._answers[bundle.version] = self._answers.get(bundle.version, 0) + len(given)
        if given:
            self.stages.note(given[0].milliseconds)

    def _begin_shadow(
        self, numbers: Sequence[int], queries: Sequence[Query], answers: Sequence[Answer | Exception], bundle: Bundle
    ) -> None:
        """Compare the candidate with answers that were given, unless it is still busy with those of another batch."""
        given = [(queries[i], a) for i in numbers if isinstance(a := answers[i], Answer)]
        if self._shadow is not None and not self._shadow.done():
            self._left_out += len(given)
        elif given:
            self._shadow = detached(self._compare(given, bundle))

    async def _compare(self, given: Sequence[tuple[Query, Answer]], bundle: Bundle) -> None:
        shadows = await self._within_timeout(self._unseen, [query for query, _ in given], bundle)
        for (_, answer), shadow in zip(given, shadows, strict=True):
            if isinstance(shadow, Answer):
                self._compared += 1
                self._differed += shadow.response.action != answer.response.action
            else:
                self._failed += 1


def _chosen(query: Query, version: str, share: float) -> bool:
    """Whether the candidate answers a user: each model its own share of them, the same at every time and place."""
    return not query.present_only and crc32(f"{version}:{query.user_id}".encode()) < share * _HASH_VALUES
