"""Usage values in Redis's wire protocol: transactions for thousands of users as one text, which polars builds.

This is Redis's mass insertion; it costs a fraction of packing each command in Python.
"""

import re
from typing import Any

import msgspec
import polars as pl
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.partials import BUCKETS
from features.shards import shards
from features.usage import SHARDS, shard_key

USERS_AT_ONCE = 256
"""Users in one transaction, about; it blocks Redis for a tenth of a millisecond."""
_TAKEN = re.compile(rb"\+OK\r\n\+QUEUED\r\n\+QUEUED\r\n\*2\r\n:\d+\r\n:1\r\n")


def await_taken(connection: Any, transactions: int, at_once: int = 2**16) -> None:
    """Read the replies to transactions as bytes, and check them with one pattern: parsing each would double the cost.

    Args:
        transactions: how many were sent on the connection.
        at_once: maximum number of bytes to receive at once.

    Raises:
        ResponseError: the first reply that is an error.
        redis.ConnectionError, redis.TimeoutError: not all replies arrived, or the server is still loading its data.
    """
    answers = bytearray()
    while answers.count(b"\n") < 4 * transactions + 2 * answers.count(b"*2\r\n"):
        try:
            read = connection._sock.recv(at_once)
        except TimeoutError as error:
            raise RedisTimeoutError("Redis does not answer in time") from error
        except OSError as error:
            raise RedisConnectionError(str(error)) from error
        if not read:
            raise RedisConnectionError("Redis has closed the connection")
        answers += read
    others, taken = _TAKEN.subn(b"", answers)
    if others or taken != transactions:
        refused = next((line for line in others.splitlines() if line.startswith(b"-")), b"-unexpected answers")
        reason = refused.decode(errors="replace").removeprefix("-")
        if reason.startswith("LOADING "):
            raise BusyLoadingError(reason.removeprefix("LOADING "))
        raise ResponseError(reason)


def values_of(run: str, uses: pl.DataFrame) -> pl.DataFrame:
    """A row for each user: user_id, value (JSON), the key of the hash, and `part`, which splits large hashes.

    The users of one key and part are written in one transaction.

    Args:
        uses: user_id, product, uses; a row for each pair.
    """
    products = uses["product"].unique()
    names = pl.Series("name", [msgspec.json.encode(product).decode() for product in products.to_list()], pl.String)
    named = uses.join(pl.DataFrame([products, names]), on="product")
    pairs = named.select("user_id", pl.format("{}:{}", "name", "uses").alias("pairs")).group_by("user_id").agg("pairs")
    parts = 1 + pairs.height * BUCKETS // (SHARDS * USERS_AT_ONCE)
    return pairs.select(
        "user_id",
        (pl.lit("{") + pl.col("pairs").list.join(",") + pl.lit("}")).alias("value"),
        (pl.lit(shard_key(run, "")) + pl.Series(shards(pairs["user_id"])).cast(pl.String)).alias("key"),
        (pl.int_range(pl.len()) % parts).alias("part"),
    )


def transactions_of(values: pl.DataFrame, ttl_s: int) -> pl.Series:
    """The transactions that write the result of `values_of`, each as a text in Redis's wire protocol (RESP)."""
    size = {column: pl.col(column).str.len_bytes() for column in ("user_id", "value", "key")}
    field = pl.format("${}\r\n{}\r\n${}\r\n{}\r\n", size["user_id"], "user_id", size["value"], "value")
    shares = values.select("key", "part", field.alias("fields")).group_by("key", "part").agg("fields")
    key = pl.format("${}\r\n{}\r\n", size["key"], "key")
    written = pl.format(
        "*{}\r\n$4\r\nHSET\r\n{}{}", 2 + 2 * pl.col("fields").list.len(), key, pl.col("fields").list.join("")
    )
    life = pl.format(f"*3\r\n$6\r\nEXPIRE\r\n{{}}${len(str(ttl_s))}\r\n{ttl_s}\r\n", key)
    return shares.select(pl.format("*1\r\n$5\r\nMULTI\r\n{}{}*1\r\n$4\r\nEXEC\r\n", written, life)).to_series()
