"""The online feature store in Redis: recent screens and product usage of a user.

Keys:
    screens:<user>        sorted set, member `<event id>\\x1f<screen>`, score event time in milliseconds
    usage:run             the run that readers see
    usage:<run>:<shard>   hash of the users of a shard, JSON objects, product to uses in the last 60 days

Writing a screen twice, late or out of order leaves the same set, so ingestion may repeat itself safely.
"""

import errno
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from features import screens
from features.cluster import ClusterClient, split_url
from features.schema import ScreenEvent, UserFeatures
from features.snapshot import snapshot
from features.usage import RUN_KEY, TTL_S, WRITE, encode, usage_key

LOCAL_URL = "redis://127.0.0.1:6380/0"
"""The server that `scripts/serve` starts, and what everything looks for where no other Redis is named."""
STALE_CONNECTIONS = 2
"""How often a read is repeated on a lost connection: the pool may hold connections that the server has closed."""
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


class StoreConfig(BaseModel):
    """Limits of the feature store. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_screens: int = Field(default=5, ge=1, le=50)
    screen_window_s: int = Field(default=1800, ge=1, le=3650 * 86400)
    """Maximum age of a recent screen. A user's set expires five minutes later."""


def connect(url: str, timeout_s: float, **options: Any) -> Redis:
    """A client that fails within `timeout_s` and never repeats a command, since the first try may have had its effect.

    It closes a connection to a server that has become a replica: the primary may answer at the same address now.
    Invalid UTF-8 is decoded to U+FFFD, so that one broken entry cannot fail a whole read.

    Args:
        url: as in redis-py, `redis://user:password@host:port/0?option=value`, with `rediss` for TLS, and with
            `redis+cluster` or `rediss+cluster` for the Redis Cluster that the host belongs to. A cluster's client must
            only be used for commands on one key, and for pipelines of them that are no transactions.

    Raises:
        ValueError, TypeError: it is no URL, or has an option that redis-py does not know.
        FileNotFoundError: an option names a file that is not there.
    """
    require_files(url)
    address, of_cluster = split_url(url)
    redis = (ClusterClient if of_cluster else Redis).from_url(
        address,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[ReadOnlyError],  # without retries, this only closes the connection
        decode_responses=True,
        encoding_errors="replace",
        **options,
    )
    return cast(Redis, redis)


def require_files(url: str) -> None:
    """Raise FileNotFoundError if an option of the URL names a file that is not there: OpenSSL would not say which."""
    parts = urlsplit(url)
    for option, value in parse_qsl(parts.query) if parts.scheme.startswith("rediss") else ():
        if option in _FILES and not Path(value).exists():
            raise FileNotFoundError(errno.ENOENT, f"no such file, named by {option}", value)


@dataclass(frozen=True, slots=True)
class Reading:
    """Features of n users, the time of the read and the usage run, from which they can be recomputed later."""

    users: list[UserFeatures]
    at_ms: int
    """Milliseconds since 1970; screens older than the window, counted from here, were left out."""
    usage_run: str | None


class FeatureStore:
    """Reads and writes user features; one round trip for any number of users."""

    def __init__(self, redis: Redis, config: StoreConfig | None = None, clock: Callable[[], float] = time.time) -> None:
        self._redis, self._clock = redis, clock
        self.config = config or StoreConfig()
        self._run: str | None = None

    async def read(self, users: Sequence[str]) -> list[UserFeatures]:
        """The present features of each user; see `reading`."""
        return (await self.reading(users)).users

    async def reading(self, users: Sequence[str]) -> Reading:
        """The present features of each user, with the time and the usage run of the read.

        Raises:
            redis.RedisError, OSError, TimeoutError: the store did not answer.
        """
        for _ in range(STALE_CONNECTIONS):
            try:
                return await self._reading(users)
            except RedisConnectionError as error:
                if type(error) is not RedisConnectionError:  # a subclass, such as a wrong password
                    raise
        return await self._reading(users)

    async def _reading(self, users: Sequence[str]) -> Reading:
        at_ms = int(self._clock() * 1000)
        since_ms = at_ms - self.config.screen_window_s * 1000
        run, features = await snapshot(self._redis, users, since_ms, self.config.max_screens, self._run)
        self._run = run
        return Reading(features, at_ms, run)

    async def write_screens(self, events: Iterable[ScreenEvent]) -> set[str]:
        """Add screen events to their users' sets, which keep the newest few by event time; see `screens`.

        Returns the users whose key has another type: their events were not stored.
        """
        return await screens.write(self._redis, events, self.config.max_screens, self.config.screen_window_s)

    async def write_usage(self, run: str, usage: Mapping[str, Mapping[str, int]], ttl_s: int = TTL_S) -> None:
        """Write users' uses by product under a run; users without uses are removed. Invisible until `publish_run`."""
        pipe = self._redis.pipeline(transaction=False)
        for user, uses in usage.items():
            key = usage_key(run, user)
            if uses:
                pipe.eval(WRITE, 1, key, ttl_s, user, encode(uses))
            else:
                pipe.hdel(key, user)
        await pipe.execute()

    async def publish_run(self, run: str, ttl_s: int = TTL_S) -> None:
        """Make a run the one that readers see, for `ttl_s` seconds."""
        await self._redis.set(RUN_KEY, run, ex=ttl_s)
