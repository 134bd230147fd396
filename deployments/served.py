"""The record of an answered batch that the flow gives to the served log, and the settings of that log."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from deployments.protocol import FeatureBatch, LogitBatch, PredictResponse, Query, TokenBatch
from features.preprocess import ContextInput
from models.bundle import Bundle


class ServedLogConfig(BaseModel):
    """Where and how what was served is logged. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None = None
    """Nothing is logged without one."""
    text: bool = False
    """Whether the messages themselves are kept."""
    rotate_s: float = Field(default=60.0, gt=0)
    """A file holds at most this many seconds; a killed process loses as much."""
    rotate_rows: int = Field(default=50_000, ge=1)
    keep_days: int | None = Field(default=None, ge=1)
    """Days after which files are deleted; by default never."""
    max_pending: int = Field(default=100_000, ge=1)
    """Rows in memory above which new ones are dropped and counted: a full disk must not stop the answers."""


@dataclass(frozen=True, slots=True)
class ServedBatch:
    """A batch with all that its answers were made from; rows of failed messages are not logged."""

    answered_at: float
    """Seconds since 1970."""
    queries: Sequence[Query]
    bundle: Bundle
    features: FeatureBatch
    contexts: Sequence[ContextInput]
    tokens: TokenBatch
    logits: LogitBatch
    responses: Sequence[PredictResponse | Exception]
