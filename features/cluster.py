"""A Redis Cluster client for callers that give up early.

redis-py's own client learns the nodes within the call that needs them, and looks again only after errors that it sees:
a caller with a short deadline might never learn them, and one whose node hangs would never hear of its successor.
"""

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterPipeline
from redis.event import EventDispatcher
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException


def split_url(url: str) -> tuple[str, bool]:
    """An address as redis-py has it, and whether it is that of a Redis Cluster's node; see `store.connect`."""
    address = url.replace("+cluster://", "://", 1)
    return address, address != url


@contextmanager
def as_connection_errors() -> Generator[None]:
    """Raise redis-py's errors of a cluster, which are no `RedisError`, as connection errors."""
    try:
        yield
    except RedisClusterException as error:
        raise RedisConnectionError(str(error)) from error


class ClusterClient(RedisCluster):
    """Learns the nodes in a task of its own, and again after a call that failed or was given up.

    Raises what a client of one server raises: `redis.RedisError`, `OSError` or `TimeoutError`.
    """

    _learning: asyncio.Task[RedisCluster] | None = None

    async def initialize(self, *args: Any, **kwargs: Any) -> RedisCluster:
        """Learn which node has which slots, if need be; the learning outlives a cancelled caller."""
        if self._initialize:
            if self._learning is None or self._learning.done():
                self._learning = asyncio.create_task(self._learn(*args, **kwargs))
                self._learning.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(self._learning)
        return self

    async def _learn(self, *args: Any, **kwargs: Any) -> RedisCluster:
        await super().initialize(*args, **kwargs)
        for node in self.get_nodes():
            if not isinstance(node._free, _Stack):
                node._free = _Stack(node._free, node._free.maxlen)
        return self

    async def aclose(self) -> None:
        """Close all connections; the next call opens new ones."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        self._initialize = False  # otherwise redis-py takes the connections for closed
        await super().aclose()

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with self.watched():
            return await super().execute_command(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        """A pipeline: one round trip for each node that has a part in it, all at once; not atomic."""
        return _Pipeline(self, transaction)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Learn the nodes anew before the next call if this one is not answered, or not in time."""
        try:
            with as_connection_errors():
                yield
        except (*RedisCluster.ERRORS_ALLOW_RETRY, asyncio.CancelledError):
            self._initialize = True
            raise


class _Stack(deque[Any]):
    """A node's free connections, of which the last one used is the next one.

    redis-py sends ASKING and what it is for one after the other, each over the next connection: it must be the same.
    """

    append = deque.appendleft


class _Pipeline(ClusterPipeline):
    _event_dispatcher: EventDispatcher

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        client = self.cluster_client
        assert isinstance(client, ClusterClient)
        with client.watched():
            return await super().execute(raise_on_error, allow_redirections)
