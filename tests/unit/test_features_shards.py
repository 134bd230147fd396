"""Shards of many users are those of each."""

import zlib

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from features.partials import BUCKETS, buckets
from features.shards import crc32, shards
from features.usage import SHARDS, shard

USERS = st.lists(st.text(st.characters(codec="utf-8")))


@given(USERS)
def test_of_many_are_those_of_each(users: list[str]) -> None:
    series = pl.Series(users, dtype=pl.String)
    assert crc32(series).tolist() == [zlib.crc32(user.encode()) for user in users]
    assert shards(series).tolist() == [shard(user) for user in users]


@given(USERS, st.integers(0, 9))
def test_of_a_part_of_a_series(users: list[str], first: int) -> None:
    part = pl.Series(users, dtype=pl.String)[first:]
    assert shards(part).tolist() == [shard(user) for user in users[first:]]


@given(USERS)
def test_a_shard_is_in_one_bucket(users: list[str]) -> None:
    assert buckets(pl.Series(users, dtype=pl.String)).tolist() == [shard(user) % BUCKETS for user in users]


def test_users_are_spread_evenly() -> None:
    users = pl.Series([f"customer-{number:09d}" for number in range(100 * SHARDS)])
    counts = np.bincount(shards(users), minlength=SHARDS)
    assert 50 < counts.min() <= counts.max() < 200
