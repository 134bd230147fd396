"""A Redis by its address: whether it answers and takes what the service writes. Its credentials are never shown."""

from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from local_redis import RedisUnavailable
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "unix")
_HIDDEN = "…"


def shown(url: str) -> str:
    """Scheme, host, port and path of an address; less where a password may be among them, as one with a bare / is."""
    scheme = url.partition("://")[0]
    hidden = f"{scheme}://{_HIDDEN}" if scheme in _SCHEMES else _HIDDEN
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no number, such as the first half of a password
    except ValueError:
        return hidden
    certain = scheme in _SCHEMES and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if certain else hidden


async def ping(url: str) -> None:
    """Raise `RedisUnavailable` unless the server answers."""
    from features.store import require_files

    where = shown(url)
    try:
        require_files(url)
        async with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as redis:
            await redis.ping()
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"REDIS_URL ({where}) does not answer: {_told(error, where)}") from None
    except (ValueError, TypeError) as error:
        raise RedisUnavailable(
            f"REDIS_URL ({where}) is not the address of one Redis server ({type(error).__name__}); "
            "in a password write / as %2F, and other special characters alike"
        ) from None


async def seed(url: str, say: Callable[[str], None]) -> None:
    """Write the demo users' usage where there is none, and again where there is only theirs, since it expires.

    Raises:
        RedisUnavailable: the server refuses.
    """
    from features import demo
    from features.store import FeatureStore, connect

    redis = connect(url, 5.0)
    try:
        with suppress(demo.RealUsage):
            if await demo.seed(FeatureStore(redis), demo.USERS):
                say(f"Redis    seeded usage of {demo.USERS} demo users, u1 to u{demo.USERS}")
    except (RedisError, OSError) as error:
        raise RedisUnavailable(
            f"Redis ({shown(url)}) does not let the service read and write usage: {type(error).__name__}"
        ) from None
    finally:
        await redis.aclose()


def _told(error: Exception, where: str) -> str:
    """An error's text; only its type where the text may repeat a part of the address that is not shown."""
    harmless = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError) and _HIDDEN not in where
    return str(error) if harmless else type(error).__name__
