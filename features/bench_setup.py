"""What benchmarks on a live Redis share: a name of their own, a process of their own, and the facts of the machine."""

import asyncio
import multiprocessing
import os
import platform
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any
from uuid import uuid4

from redis import __version__ as redis_py
from redis.asyncio import Redis

from features.machine import processor
from features.store import connect


@asynccontextmanager
async def scratch(redis_url: str) -> AsyncGenerator[tuple[Redis, str]]:
    """A client, and a name that is in no key yet; every key with that name in it is deleted in the end.

    Raises:
        redis.NoPermissionError: the user may not do what is needed in the end; nothing was written.
    """
    name = f"bench-{uuid4().hex[:12]}"
    async with aclosing(connect(redis_url, 10.0)) as asking:  # `count_sends` is blind to connections opened before it
        await machine(asking)
        await _delete(asking, name)
    async with aclosing(connect(redis_url, 10.0)) as redis:
        try:
            yield redis, name
        finally:
            await _delete(redis, name)


async def _delete(redis: Redis, name: str) -> None:
    await redis.delete(name)  # refused where DEL is forbidden, even if there is no key
    keys = [str(key) async for key in redis.scan_iter(match=f"*{name}*", count=1_000)]
    for first in range(0, len(keys), 1_000):
        pipe = redis.pipeline(transaction=False)
        for key in keys[first : first + 1_000]:
            pipe.delete(key)
        await pipe.execute()


@contextmanager
def process(
    run: Callable[..., Coroutine[Any, Any, None]], *arguments: Any
) -> Generator[tuple[int, "Connection[Any, Any]"]]:
    """Run a coroutine function in a new process, with a pipe to this one before its arguments; killed in the end.

    Should this process be killed itself, the new one ends as well. It has nothing to read from its pipe.

    Yields the process id and this end of the pipe.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_run, args=(run, there, *arguments), daemon=True)
    child.start()
    there.close()
    try:
        yield child.pid or 0, here
    finally:
        child.kill()
        child.join()
        here.close()


def _run(run: Callable[..., Coroutine[Any, Any, None]], pipe: "Connection[Any, Any]", *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the one that started this ends it
    with suppress(asyncio.CancelledError):
        asyncio.run(_while_somebody_listens(run, pipe, *arguments))


async def _while_somebody_listens(
    run: Callable[..., Coroutine[Any, Any, None]], pipe: "Connection[Any, Any]", *arguments: Any
) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(run(pipe, *arguments))

    def end() -> None:
        loop.remove_reader(descriptor)
        task.cancel()

    descriptor = pipe.fileno()
    loop.add_reader(descriptor, end)
    await task


async def answer(pipe: "Connection[Any, Any]", timeout_s: float) -> Any:
    """The next thing that the process says.

    Raises:
        ChildProcessError: it ended or said nothing in time.
    """
    try:
        if await asyncio.to_thread(pipe.poll, timeout_s):
            return pipe.recv()
    except EOFError:
        raise ChildProcessError("the benchmark's process has ended") from None
    raise ChildProcessError(f"the benchmark's process said nothing for {timeout_s:.0f} s")


def count_sends(redis: Redis) -> Callable[[], int]:
    """How often connections that the client opens from now on have sent something; always 0 in a Redis Cluster."""
    sent = 0
    pool: Any = getattr(redis, "connection_pool", None)
    base: Any = pool.connection_class if pool is not None else object

    class Counting(base):  # type: ignore[misc]
        async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
            nonlocal sent
            sent += 1
            await super().send_packed_command(*arguments, **options)

    if pool is not None:
        pool.connection_class = Counting
    return lambda: sent


async def machine(redis: Redis) -> dict[str, Any]:
    """The processor, how busy it is, and the versions of what ran."""
    info = await redis.info("server")
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "redis": info["redis_version"],
        "redis_py": redis_py,
        "python": platform.python_version(),
    }
