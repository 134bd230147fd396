"""What can be set in the YAML of an application: `args`, checked before anything is deployed."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.breaker import BreakerConfig
from deployments.cache import CacheConfig
from deployments.near import NearConfig
from deployments.served import ServedLogConfig
from deployments.tracing import TracingConfig
from features.store import LOCAL_URL, StoreConfig
from features.stream import IngesterConfig
from models.classifier import Device
from models.registry import DEFAULT

Placement = Literal["deployment", "inline"]


class AppArgs(BaseModel):
    """Arguments of the application `switchboard`. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: str = LOCAL_URL
    """Or `$NAME`: an environment variable that holds it, since Ray logs these arguments."""
    redis_timeout_ms: float = Field(default=100, gt=0)
    """How long features may take; after it the answer goes without them."""
    gather_timeout_ms: float = Field(default=250, gt=0)
    """How long the gather stage as a whole may take, its hop and a restart of its replica included."""
    api_keys: str | None = Field(default=None, pattern=r"^\$[A-Za-z_][A-Za-z0-9_]*$")
    """`$NAME`: an environment variable that holds keys, separated by commas; requests then need one as bearer token."""
    publish_timeout_ms: float = Field(default=1000, gt=0)
    """How long publishing a screen event may take."""
    registry: str = str(DEFAULT)
    model: str = "production"
    """Name or version of the bundle that answers."""
    device: Device = "cpu"
    await_gpu: bool = False
    """With `device: cuda`, whether to wait for a GPU node when the cluster has none."""
    threads: int = Field(default=1, ge=1)
    """Threads of one inference."""
    desks: dict[str, str] = Field(default_factory=dict)
    """Product to desk; products that are not listed have the desk of their own name."""
    gather: Placement = "deployment"
    preprocess: Placement = "deployment"
    cache: Placement = "deployment"
    classify: Placement = "deployment"
    """Whether each of these four stages is a deployment of its own or runs in its caller's process."""
    near: NearConfig = NearConfig()
    """When the ingress gathers and preprocesses itself, though these stages are deployments."""
    links: bool = True
    """Whether stages that are deployments are called over Unix sockets where caller and replica share a node."""
    cache_limits: CacheConfig = CacheConfig()
    """As a deployment, the cache takes them as `user_config` too, while it runs."""
    store: StoreConfig = StoreConfig()
    breaker: BreakerConfig = BreakerConfig()
    served_log: ServedLogConfig = ServedLogConfig()
    tracing: TracingConfig = TracingConfig()


class ScreenEventsArgs(BaseModel):
    """Arguments of the application `screen-events`. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: str = LOCAL_URL
    store: StoreConfig = StoreConfig()
    ingester: IngesterConfig = IngesterConfig()
