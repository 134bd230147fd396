"""What travels: wire types of the HTTP interface, and batches between stages.

Wire types are `msgspec` structs, decoded and encoded in one compiled step; the OpenAPI document is made from
them. Batches hold arrays once per batch rather than objects per message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from features.preprocess import Ids
from features.schema import Identifier, Product, UserFeatures
from models.context import Floats

MAX_TEXT = 4_000
MAX_TOP_K = 100
WITHIN_S = 1.7
"""How long the cache may wait for inferences where a batch has no deadline."""
SOURCES = ("recent_screens", "product_usage_60d")
"""What `degraded` may name."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT, description="What the customer wrote.")]


def visible(text: str) -> bool:
    """Whether a text has a character that one can see: of all white space, Python calls only the blank printable."""
    return any(map(str.isprintable, text.replace(" ", "")))


class PredictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chat message to classify."""

    user_id: Identifier
    text: Text
    request_id: Identifier | None = None
    top_k: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOP_K, description="Length of `top`.")] = 3


class ScreenEventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A screen that a user has just seen. `at` defaults to now, `event_id` to a new one."""

    user_id: Identifier
    screen: Identifier
    at: Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339 with an offset.")] | None = None
    event_id: Identifier | None = None


class ScreenEventAccepted(msgspec.Struct, frozen=True):
    """The event is on the stream."""

    event_id: str
    stream_id: str


class FeedbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The product that a conversation turned out to be about: the desk that finally helped."""

    request_id: Identifier
    product: Product


class FeedbackAccepted(msgspec.Struct, frozen=True):
    """The feedback is stored."""

    request_id: str
    stream_id: str
    product_known: bool
    """Whether the present model knows the product: new ones are welcome, typing errors are not."""


class Action(msgspec.Struct, frozen=True):
    """Where the conversation goes."""

    type: Literal["route", "general_queue"]
    desk: str


class RankedProduct(msgspec.Struct, frozen=True):
    product: str
    confidence: float


class Evidence(msgspec.Struct, frozen=True):
    """For the products in `top`: what the words alone say, and what the context adds."""

    text: dict[str, float]
    """Probability by the words alone."""
    context: dict[str, float]
    """Change of the log-odds by screens and usage; 0 where there are none."""


class ServedFeatures(msgspec.Struct, frozen=True):
    """The features that the answer used; screens oldest first."""

    recent_screens: Sequence[str]
    product_usage_60d: Mapping[str, int]


class PredictResponse(msgspec.Struct, frozen=True):
    """The product, a calibrated confidence and a desk."""

    request_id: str
    product: str
    confidence: float
    action: Action
    top: list[RankedProduct]
    evidence: Evidence
    features: ServedFeatures
    cached: bool
    degraded: Sequence[str]
    model_version: str
    preprocessing: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    field: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """Every answer that is not a success."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Query:
    """A validated request on its way through the flow."""

    request_id: str
    user_id: str
    text: str
    top_k: int
    present_only: bool = False
    """Whether no candidate may answer it: the caller names the version."""


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Features of n users, and the sources that did not answer."""

    users: list[UserFeatures]
    degraded: tuple[str, ...] = ()
    at_ms: int | None = None
    """When they were read, in milliseconds since 1970."""
    usage_run: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by position, at half of what dataclasses with slots take."""
        users = [(user.recent_screens, user.product_usage_60d) for user in self.users]
        return _feature_batch, (users, self.degraded, self.at_ms, self.usage_run)

    @classmethod
    def missing(cls, n: int) -> "FeatureBatch":
        """What n users get when no source answers."""
        return cls([UserFeatures()] * n, SOURCES)


def _feature_batch(
    users: list[tuple[tuple[str, ...], Mapping[str, int]]],
    degraded: tuple[str, ...],
    at_ms: int | None,
    usage_run: str | None,
) -> FeatureBatch:
    return FeatureBatch([UserFeatures(*user) for user in users], degraded, at_ms, usage_run)


@dataclass(frozen=True, slots=True)
class TextBatch:
    """n texts for one model version."""

    version: str
    texts: list[str]

    def __reduce__(self) -> tuple[Any, ...]:
        return TextBatch, (self.version, self.texts)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """n token vectors, end to end in one array, for one model version."""

    version: str
    ids: Ids
    """(sum of lengths,) int32"""
    lengths: Ids
    """(n,) int32"""
    within_s: float = WITHIN_S
    """How long the cache may wait for inferences, in seconds."""

    @classmethod
    def of(cls, version: str, rows: Sequence[Ids]) -> "TokenBatch":
        lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
        return cls(version, np.concatenate(rows) if rows else np.zeros(0, np.int32), lengths)

    def rows(self) -> list[Ids]:
        """The token vectors as views."""
        ends = np.cumsum(self.lengths).tolist()
        starts = [0, *ends[:-1]] if ends else []
        return [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as bytes, at a quarter of what arrays take."""
        return _token_batch, (self.version, self.ids.tobytes(), self.lengths.tobytes(), self.within_s)


def _token_batch(version: str, ids: bytes, lengths: bytes, within_s: float) -> TokenBatch:
    return TokenBatch(version, np.frombuffer(ids, np.int32), np.frombuffer(lengths, np.int32), within_s)


@dataclass(frozen=True, slots=True)
class LogitBatch:
    """Text logits of n messages by one model version."""

    version: str
    logits: Floats
    """(n, outputs); a row of NaN is a message whose inference failed."""
    cached: npt.NDArray[np.bool_]
    """(n,) whether the logits came from the cache."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Time spent in stages that the caller cannot see."""
    failure: str | None = None
    """Why rows failed, except those in `late`."""
    late: frozenset[int] = frozenset()
    """Rows without logits because the classifier did not answer in time."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as bytes, at a quarter of what arrays take; without late rows, also for replicas of older code."""
        logits, cached = self.logits.tobytes(), self.cached.tobytes()
        known = (self.version, self.logits.shape, logits, cached, self.milliseconds, self.failure)
        return _logit_batch, (*known, self.late) if self.late else known


def _logit_batch(
    version: str,
    shape: tuple[int, int],
    logits: bytes,
    cached: bytes,
    milliseconds: Mapping[str, float],
    failure: str | None,
    late: frozenset[int] = frozenset(),
) -> LogitBatch:
    rows = np.frombuffer(logits, np.float32).reshape(shape)
    return LogitBatch(version, rows, np.frombuffer(cached, np.bool_), milliseconds, failure, late)


class DependencyError(RuntimeError):
    """A part that an answer cannot do without is not available; becomes a 503."""
