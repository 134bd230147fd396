"""Runs of the batch pipeline into Redis: begun, written bucket by bucket, and published in one step.

One server takes whole buckets as they go over the wire, see `usage_wire`. A Redis Cluster, where every key may live
elsewhere, is written through the client's own pipeline instead.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError
from redis.retry import Retry

from features.cluster import as_connection_errors, split_url
from features.partials import BUCKETS
from features.usage import RUN_KEY, SHARDS, TTL_S, WRITE, shard_key
from features.usage_wire import await_taken, transactions_of, values_of

TIMEOUT_S = 10.0
Check = Callable[[str | None], None]
"""Takes the run that readers see, and raises if another must not replace it."""
_DRIVER = DriverInfo(lib_version=None)
"""A version would be read from the package's metadata for each connection. Some answer there must be, with which those
bytes are read that TLS sends first: redis-py has no use for a connection with bytes that nobody has asked for.
"""
TRANSACTIONS_AT_ONCE = 256
"""Sent before their answers are read."""
COMMANDS_AT_ONCE = 16
"""In a pipeline to a Cluster: redis-py repeats those of a node that hangs one by one, each for `TIMEOUT_S`."""
_COUNT = """
local users = 0
for shard = ARGV[2], ARGV[2] + ARGV[3] - 1 do users = users + redis.call('HLEN', ARGV[1] .. shard) end
return users
"""
"""How many users some hashes have, from the name of them all without its number, the first number, and how many."""
_SHARDS_AT_ONCE = 256
"""Counted in one step: Redis does nothing else for about half a millisecond."""


class ExpiredRun(ValueError):
    """Values of a run may have expired before all were written; the message names the run."""


class LostUsers(ValueError):
    """Redis no longer holds all that was written of a run; the message names the run."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What there is of a run before it is written.

    Attributes:
        users: the number of users of each bucket that a killed attempt has written.
        until: none of the values expires before, whether they are there or are written from now on; in seconds of
            `time.monotonic`.
    """

    users: dict[int, int]
    until: float


@dataclass(frozen=True, slots=True)
class UsageWriter:
    """Writes runs of the batch pipeline; travels to the workers, each of which opens a connection of its own.

    Attributes:
        redis_url: a server, or with `redis+cluster://` a cluster.
        ttl_s: how long values live.
    """

    redis_url: str
    ttl_s: int = TTL_S

    def present(self) -> str | None:
        """The run that readers see."""
        with self._client() as redis:
            run: str | None = redis.get(RUN_KEY)
        return run

    def begin(self, run: str) -> Begun:
        """What a killed attempt at the same run has written.

        Nothing if readers see the run: it is written once more, so that its values live on. If these are to live
        shorter than before, so does the run, from now on.
        """
        users, started, life_s = dict[int, int](), time.monotonic(), float(self.ttl_s)
        with self._client() as redis:
            if redis.get(RUN_KEY) != run:
                for bucket in range(BUCKETS):
                    mark = self._mark(run, bucket)
                    number, left_s = redis.get(mark), redis.pttl(mark) / 1000
                    if number is not None and left_s > 0:
                        users[bucket] = int(number)
                        life_s = min(life_s, left_s + self.ttl_s - self._mark_s)
            elif redis.pttl(RUN_KEY) > self.ttl_s * 1000:
                redis.expire(RUN_KEY, self.ttl_s)
        return Begun(users, started + life_s)

    def write(self, run: str, bucket: int, uses: pl.DataFrame) -> int:
        """Write one bucket's users; invisible until `publish`.

        Args:
            uses: user_id, product, uses; a row for each pair, of users of this bucket.

        Returns:
            The number of users.

        Raises:
            redis.RedisError: a value was not taken, or the server does not answer.
        """
        started = time.monotonic()
        with self._client() as redis:
            values = values_of(run, uses)
            (self._insert if isinstance(redis, Redis) else self._insert_in_cluster)(redis, values)
            left_ms = int((started + self._mark_s - time.monotonic()) * 1000)
            if left_ms > 0:
                redis.set(self._mark(run, bucket), values.height, px=left_ms)
        return values.height

    def require(self, run: str, users: int) -> None:
        """See to it that all users of a run are there: a restart, a failover or an eviction may have lost some.

        Raises:
            LostUsers: some are not; the next attempt writes all of them.
        """
        with self._client() as redis:
            lost = users - self._users(redis, run)
            if lost > 0:
                self._forget_marks(redis, run)
                raise LostUsers(
                    f"{run}: Redis has lost {lost} of {users} users, "
                    "as one does that restarts without its data or evicts keys: run again"
                )

    def publish(self, run: str, check: Check = lambda present: None, until: float | None = None) -> None:
        """Make a run the one that readers see, atomically; it expires with the first of its values.

        Args:
            check: is given the run that would be replaced; what it raises is raised here, and nothing has changed.
            until: as `begin` has it; default: all values were written just now.

        Raises:
            ExpiredRun: that was before now.
        """

        def flip(pipe: Any) -> None:
            check(pipe.get(RUN_KEY))
            left_s = self.ttl_s if until is None else until - time.monotonic()
            if left_s <= 0:
                raise ExpiredRun(f"{run}: took longer than its first values live: give --ttl-days more, or run again")
            pipe.multi()
            pipe.set(RUN_KEY, run, px=max(1, int(left_s * 1000)))

        with self._client() as redis:
            redis.transaction(flip, RUN_KEY)
            self._forget_marks(redis, run)

    def remove(self, prefix: str) -> None:
        """Delete what was written of every run whose name begins so."""
        with self._client() as redis:
            for pattern in (f"usage:{prefix}*", f"usage-progress:{prefix}*"):
                keys = list(redis.scan_iter(pattern, count=10_000))
                for first in range(0, len(keys), 10_000):
                    pipe = redis.pipeline(transaction=False)
                    for key in keys[first : first + 10_000]:
                        pipe.delete(key)
                    pipe.execute()

    def _insert(self, redis: Redis, values: pl.DataFrame) -> None:
        transactions = transactions_of(values, self.ttl_s)
        connection: Any = redis.connection_pool.get_connection()
        try:
            for first in range(0, len(transactions), TRANSACTIONS_AT_ONCE):
                part = transactions.slice(first, TRANSACTIONS_AT_ONCE)
                connection.send_packed_command([part.str.join("").item().encode()])
                await_taken(connection, len(part))
        except BaseException:
            connection.disconnect()
            raise
        finally:
            redis.connection_pool.release(connection)

    def _insert_in_cluster(self, redis: Any, values: pl.DataFrame) -> None:
        shares = values.group_by("key", "part").agg(pl.concat_list("user_id", "value").explode().alias("fields"))
        rows = shares.select("key", "fields").iter_rows()
        _answers(redis, (("EVAL", WRITE, 1, key, self.ttl_s, *fields) for key, fields in rows))

    def _users(self, redis: Any, run: str) -> int:
        if isinstance(redis, RedisCluster):
            return sum(_answers(redis, (("HLEN", shard_key(run, number)) for number in range(SHARDS))))
        firsts = range(0, SHARDS, _SHARDS_AT_ONCE)
        return sum(redis.eval(_COUNT, 0, shard_key(run, ""), first, _SHARDS_AT_ONCE) for first in firsts)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        address, of_cluster = split_url(self.redis_url)
        with (
            as_connection_errors(),
            (RedisCluster if of_cluster else Redis).from_url(
                address,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
                protocol=2,  # in which nothing but answers comes from the wire
                driver_info=_DRIVER,
            ) as redis,
        ):
            try:
                yield redis
            except RedisError as error:
                vars(error).pop("connection", None)  # with it, a cluster's errors could not travel from a worker
                raise
            finally:
                cluster: Any = redis if isinstance(redis, RedisCluster) else None
                for node in cluster.get_nodes() if cluster is not None else ():
                    if node.redis_connection is not None:
                        node.redis_connection.connection_pool.disconnect()  # the cluster's own `close` does not

    @property
    def _mark_s(self) -> int:
        """How long a mark lives, from before its first value: half as long, so that a resumed run has fresh ones."""
        return self.ttl_s // 2

    def _mark(self, run: str, bucket: int) -> str:
        """Says that a bucket was written."""
        return f"usage-progress:{run}:{self.ttl_s}:{bucket}"

    def _forget_marks(self, redis: Any, run: str) -> None:
        for bucket in range(BUCKETS):
            redis.delete(self._mark(run, bucket))


def _answers(cluster: Any, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    waiting, answers = iter(commands), list[Any]()
    while some := list(islice(waiting, COMMANDS_AT_ONCE)):
        pipe = cluster.pipeline()
        for command in some:
            pipe.execute_command(*command)
        answers += pipe.execute()
    return answers
