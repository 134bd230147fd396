"""The shards of many users at once; `features.usage.shard` does the same for one."""

import zlib

import numpy as np
import polars as pl
import pyarrow as pa

from features.usage import SHARDS

_OF_BYTE = np.array([zlib.crc32(bytes([byte ^ 0xFF])) ^ 0xFF000000 for byte in range(256)], np.uint32)
"""CRC-32's table: the contribution of each byte, without zlib's initial and final complement."""


def shards(users: pl.Series) -> np.ndarray:
    """The shard of each user.

    Args:
        users: strings, without nulls.

    Returns:
        uint32 [users].
    """
    return crc32(users) % np.uint32(SHARDS)


def crc32(texts: pl.Series) -> np.ndarray:
    """`zlib.crc32` of texts in UTF-8, for all texts byte by byte: three times as fast as text by text.

    Args:
        texts: strings, without nulls.

    Returns:
        uint32 [texts].
    """
    array = texts.to_arrow().cast(pa.large_binary())
    _, ends, content = array.buffers()
    values = np.full(len(array), 0xFFFFFFFF, np.uint32)
    if not len(array):
        return values
    places = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    starts, lengths, data = places[:-1], np.diff(places), np.frombuffer(content, np.uint8)
    shortest = lengths.min()
    for position in range(lengths.max()):
        longer = slice(None) if position < shortest else np.flatnonzero(lengths > position)
        value = values[longer]
        values[longer] = _OF_BYTE[(value ^ data[starts[longer] + position]) & 0xFF] ^ (value >> 8)
    return ~values
