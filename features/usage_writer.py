"""Usage values into Redis, many at once: the commands of thousands of users as one text, made by polars.

Redis calls this mass insertion; it costs a fraction of packing each command in Python. A Redis Cluster, where
every key may live elsewhere, is written through the client's own pipeline instead.
"""

import asyncio
from dataclasses import dataclass

import polars as pl
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.store import RUN_KEY, FeatureStore, StoreConfig, connect

TIMEOUT_S = 10.0
_USERS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class UsageWriter:
    """Writes runs of the batch pipeline; travels to the workers, each of which opens a connection of its own.

    Attributes:
        redis_url: a server, or with `redis+cluster://` a cluster.
        ttl_s: how long values live.
    """

    redis_url: str
    ttl_s: int = StoreConfig().usage_ttl_s

    def ping(self) -> None:
        """Fail now rather than after the aggregation, if the server does not answer."""
        with self._client() as redis:
            redis.ping()

    def begin(self, run: str, buckets: int) -> list[int]:
        """The buckets that are still to be written: those that a killed attempt at the same run left out."""
        with self._client() as redis:
            if redis.get(RUN_KEY) == run:
                return list(range(buckets))
            done = redis.smembers(_progress_key(run))
            return [number for number in range(buckets) if str(number) not in done]

    def write(self, run: str, bucket: int, uses: pl.DataFrame) -> int:
        """Write one bucket's users; invisible until `publish`.

        Args:
            uses: user_id, product, uses; a row for each pair.

        Returns:
            The number of users.

        Raises:
            redis.RedisError: a value was not taken, or the server does not answer.
        """
        if "+cluster" in self.redis_url:
            users = asyncio.run(self._write_through_client(run, uses))
        else:
            users = self._insert(run, uses)
        with self._client() as redis:
            redis.sadd(_progress_key(run), str(bucket))
            redis.expire(_progress_key(run), max(1, self.ttl_s // 2))
        return users

    def publish(self, run: str) -> None:
        """Make a run the one that readers see, atomically."""
        with self._client() as redis:
            redis.set(RUN_KEY, run)
            redis.delete(_progress_key(run))

    def _insert(self, run: str, uses: pl.DataFrame) -> int:
        commands = commands_of(run, uses, self.ttl_s)
        with self._client() as redis:
            connection = redis.connection_pool.get_connection()
            try:
                for first in range(0, len(commands), _USERS_AT_ONCE):
                    part = commands.slice(first, _USERS_AT_ONCE)
                    connection.send_packed_command([part.str.join("").item().encode()])
                    for _ in range(2 * len(part)):
                        connection.read_response()
            except BaseException:
                connection.disconnect()
                raise
            finally:
                redis.connection_pool.release(connection)
        return len(commands)

    async def _write_through_client(self, run: str, uses: pl.DataFrame) -> int:
        redis = connect(self.redis_url, TIMEOUT_S)
        store = FeatureStore(redis, StoreConfig(usage_ttl_s=self.ttl_s))
        users = uses.group_by("user_id").agg("product", "uses")
        try:
            for part in users.iter_slices(_USERS_AT_ONCE):
                rows = part.select("user_id", "product", "uses").iter_rows()
                await store.write_usage(run, {user: dict(zip(*pairs, strict=True)) for user, *pairs in rows})
        finally:
            await redis.aclose()
        return users.height

    def _client(self) -> Redis:
        return Redis.from_url(
            self.redis_url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )


def commands_of(run: str, uses: pl.DataFrame, ttl_s: int) -> pl.Series:
    """For each user, an HSET of all products and an EXPIRE, as Redis reads them from the wire (RESP arrays)."""
    fields = uses.select("user_id", (_bulk("product") + _bulk("uses")).alias("fields"))
    users = fields.group_by("user_id").agg(pl.len().alias("n"), pl.col("fields").str.join(""))
    key = _bulk(pl.lit(f"usage:{run}:") + pl.col("user_id"))
    hset = pl.format("*{}\r\n$4\r\nHSET\r\n{}{}", 2 + 2 * pl.col("n"), key, "fields")
    expire = pl.format("*3\r\n$6\r\nEXPIRE\r\n{}{}", key, pl.lit(f"${len(str(ttl_s))}\r\n{ttl_s}\r\n"))
    return users.select((hset + expire).alias("commands")).to_series()


def _bulk(value: str | pl.Expr) -> pl.Expr:
    text = (pl.col(value) if isinstance(value, str) else value).cast(pl.String)
    return pl.format("${}\r\n{}\r\n", text.str.len_bytes(), text)


def _progress_key(run: str) -> str:
    return f"usage-progress:{run}"
