"""Settings of the traces; `deployments.spans` makes them."""

from pydantic import BaseModel, ConfigDict, Field


class TracingConfig(BaseModel):
    """Where traces go, and of which requests. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/\s]\S*$")
    """A collector's address for OTLP over HTTP, `http://collector:4318/v1/traces`. Nothing is traced without one."""
    share: float = Field(default=0.0, ge=0, le=1)
    """Of the requests without a `traceparent` of their own; with one, its sampled flag decides."""
