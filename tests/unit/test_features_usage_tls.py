"""Usage into a Redis with TLS and without a password."""

import asyncio
from pathlib import Path
from typing import Any

from local_redis import LocalRedis
from redis.asyncio import Redis

from features.usage import RUN_KEY
from features.usage_writer import UsageWriter
from tests.unit.tls_front import certify, tls_front


async def test_what_tls_sends_first_has_been_read_when_a_connection_is_used(
    redis: Redis, redis_server: LocalRedis, tmp_path: Path
) -> None:
    """The server's session tickets come by themselves; redis-py refuses a connection on which they wait."""
    await redis.set(RUN_KEY, "monday")
    certificate, key = certify(tmp_path)
    async with tls_front(redis_server.port, certificate, key) as port:
        writer = UsageWriter(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")

        def read() -> tuple[bool, str | None]:
            with writer._client() as client:
                connection: Any = client.connection_pool.make_connection()
                connection.connect()
                has_ticket: bool = connection._sock.session.has_ticket
                connection.disconnect()
            return has_ticket, writer.present()

        assert await asyncio.to_thread(read) == (True, "monday")
