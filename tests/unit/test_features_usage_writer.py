"""Usage into a real Redis: any text survives, nothing shows before it is published, a resumed run is complete."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from features.partials import BUCKETS
from features.store import FeatureStore, connect
from features.usage import RUN_KEY, SHARDS, shard, usage_key
from features.usage_wire import USERS_AT_ONCE, transactions_of, values_of
from features.usage_writer import TRANSACTIONS_AT_ONCE, ExpiredRun, UsageWriter
from tests.unit.event_logs import Uses
from tests.unit.redis_process import RedisProcess, cluster_port, join
from tests.unit.usage_values import stored

RUN = "2026-11-25-60d-0123abcd"
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
BUCKET = SHARDS // BUCKETS
"""Shards in a bucket."""
USES = st.dictionaries(TEXT, st.dictionaries(TEXT, st.integers(1, 2**40), min_size=1, max_size=4), max_size=4)


@pytest.fixture
def server(redis_server: LocalRedis) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with Redis.from_url(redis_server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def writer(server: Redis, redis_server: LocalRedis) -> UsageWriter:
    return UsageWriter(redis_server.url, 1000)


def frame(uses: Uses) -> pl.DataFrame:
    rows = [(user, product, n) for user, products in uses.items() for product, n in products.items()]
    schema = {"user_id": pl.String, "product": pl.Categorical, "uses": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def user_of(bucket: int) -> str:
    return next(user for user in map(str, range(SHARDS)) if shard(user) % BUCKETS == bucket)


def refuse_any(present: str | None) -> None:
    """Publish only where readers see no run."""
    if present is not None:
        raise ValueError(present)


def read(url: str, *users: str) -> list[dict[str, int]]:
    """What readers see of these users."""

    async def features() -> list[dict[str, int]]:
        redis = connect(url, 60.0)
        try:
            return [dict(user.product_usage_60d) for user in await FeatureStore(redis).read(users)]
        finally:
            await redis.aclose()

    return asyncio.run(features())


class TestCommands:
    @given(USES)
    @example({"a b": {"x:y": 1}, "\r\n": {"$3\r\nabc\r\n": 2}, "*1": {"\0": 3}, "{u}": {"{}": 4}, "ß€😀": {"Ünï": 5}})
    def test_any_text_arrives_as_it_is(self, redis_server: LocalRedis, uses: Uses) -> None:
        with Redis.from_url(redis_server.url, decode_responses=True) as client:
            client.flushall()
            assert UsageWriter(redis_server.url).write(RUN, 0, frame(uses)) == len(uses)
            assert stored(client, RUN) == uses

    def test_one_transaction_for_some_users_of_a_shard(self) -> None:
        (transaction,) = transactions_of(values_of("run", frame({"ü": {"ä": 12}})), 60)
        key = "$14\r\nusage:run:2517\r\n"
        assert transaction == (
            f'*1\r\n$5\r\nMULTI\r\n*4\r\n$4\r\nHSET\r\n{key}$2\r\nü\r\n$9\r\n{{"ä":12}}\r\n'
            f"*3\r\n$6\r\nEXPIRE\r\n{key}$2\r\n60\r\n*1\r\n$4\r\nEXEC\r\n"
        )
        values = values_of("run", frame({f"u{number}": {"a": number} for number in range(2 * SHARDS)}))
        assert len(transactions_of(values, 60)) == values["key"].n_unique() <= SHARDS
        assert (
            len(transactions_of(values.with_columns(key=pl.lit("k"), part=pl.Series(range(2 * SHARDS)) % 3), 60)) == 3
        )
        assert len(transactions_of(values_of("run", frame({})), 60)) == 0

    def test_large_shards_are_written_in_parts(self) -> None:
        users = BUCKET * USERS_AT_ONCE + 1
        uses = pl.DataFrame({"user_id": [f"u{number}" for number in range(users)], "product": "a", "uses": 1})
        assert set(values_of("run", uses)["part"]) == {0, 1}
        assert set(values_of("run", uses.head(users // 2))["part"]) == {0}


class TestWrite:
    def test_more_users_than_are_sent_at_once(self, writer: UsageWriter, server: Redis) -> None:
        uses = {f"u{number}": {"a": number + 1, "b": 1} for number in range(3 * TRANSACTIONS_AT_ONCE)}
        assert writer.write(RUN, 3, frame(uses)) == len(uses)
        writer.publish(RUN)
        users = [*uses, "none"]
        assert read(writer.redis_url, *users) == [uses.get(user, {}) for user in users]
        assert server.dbsize() == len({shard(user) for user in uses}) + 1

    def test_values_expire(self, writer: UsageWriter, server: Redis) -> None:
        writer.write(RUN, 0, frame({"u1": {"a": 1}}))
        writer.publish(RUN)
        assert all(990 < server.ttl(key) <= 1000 for key in (usage_key(RUN, "u1"), RUN_KEY))

    def test_nothing_shows_before_it_is_published(self, writer: UsageWriter) -> None:
        writer.write("before", 0, frame({"u1": {"a": 1}, "u2": {"a": 1}}))
        writer.publish("before")
        writer.write(RUN, 0, frame({"u1": {"a": 2}}))
        assert read(writer.redis_url, "u1", "u2") == [{"a": 1}, {"a": 1}]
        writer.publish(RUN)
        assert read(writer.redis_url, "u1", "u2") == [{"a": 2}, {}]

    def test_a_value_that_redis_refuses_is_an_error_and_the_bucket_is_not_done(
        self, writer: UsageWriter, server: Redis
    ) -> None:
        server.acl_setuser(
            "half",
            enabled=True,
            nopass=True,
            keys=["usage-progress:*", "usage:run", f"usage:{RUN}:1*"],
            commands=["+@all"],
        )
        half = UsageWriter(writer.redis_url.replace("://", "://half:x@"), writer.ttl_s)
        with pytest.raises(ResponseError, match="permission"):
            half.write(RUN, 0, frame({f"u{number}": {"a": 1} for number in range(99)}))
        assert writer.begin(RUN).users == {}

    def test_a_full_redis_is_an_error(self, tmp_path: Path) -> None:
        uses = frame({f"u{number}": {f"product {n}": n for n in range(9)} for number in range(20_000)})
        with RedisProcess(tmp_path, "--maxmemory", "3mb") as full, pytest.raises(ResponseError, match="maxmemory"):
            UsageWriter(f"redis://127.0.0.1:{full.port}/0").write(RUN, 0, uses)

    def test_a_redis_that_is_not_there_is_an_error_at_once(self, tmp_path: Path) -> None:
        with RedisProcess(tmp_path) as server:
            writer = UsageWriter(f"redis://127.0.0.1:{server.port}/0")
            assert writer.present() is None
        for attempt in (writer.present, lambda: writer.begin(RUN), lambda: writer.publish(RUN)):
            with pytest.raises(RedisConnectionError):
                attempt()

    def test_a_cluster_that_is_not_there_is_the_same_error(self) -> None:
        with pytest.raises(RedisConnectionError):
            UsageWriter("redis+cluster://127.0.0.1:1/0").present()

    def test_a_password_is_used_and_a_wrong_one_refused(self, tmp_path: Path) -> None:
        with RedisProcess(tmp_path, password="s3cret") as server:
            url = f"redis://:s3cret@127.0.0.1:{server.port}/0"
            UsageWriter(url).write(RUN, 0, frame({"u1": {"a": 1}}))
            UsageWriter(url).publish(RUN)
            assert read(url, "u1") == [{"a": 1}]
            with pytest.raises(RedisConnectionError):
                UsageWriter(url.replace("s3cret", "guess")).present()


class TestPublish:
    def test_over_a_run_that_is_refused_changes_nothing(self, writer: UsageWriter) -> None:
        writer.publish("there")
        writer.write(RUN, 3, frame({"u1": {"a": 1}}))
        with pytest.raises(ValueError, match="there"):
            writer.publish(RUN, refuse_any)
        assert writer.present() == "there"
        assert writer.begin(RUN).users == {3: 1}

    def test_a_run_that_comes_between_the_check_and_the_flip_is_checked_as_well(
        self, writer: UsageWriter, server: Redis
    ) -> None:
        checked = []

        def check(present: str | None) -> None:
            checked.append(present)
            refuse_any(present)
            server.set(RUN_KEY, "later")

        with pytest.raises(ValueError, match="later"):
            writer.publish(RUN, check)
        assert (checked, writer.present()) == ([None, "later"], "later")


class TestResume:
    def test_a_killed_run_goes_on_where_it_was(self, writer: UsageWriter) -> None:
        assert writer.begin(RUN).users == {}
        writer.write(RUN, 0, frame({"u1": {"a": 1}, "u2": {"a": 1}}))
        writer.write(RUN, 7, frame({}))
        assert writer.begin(RUN).users == {0: 2, 7: 0}
        assert writer.begin(RUN.replace("abcd", "abce")).users == {}

    def test_what_is_visible_is_written_again(self, writer: UsageWriter, server: Redis) -> None:
        writer.write(RUN, 0, frame({"u1": {"a": 1}}))
        writer.publish(RUN)
        assert writer.begin(RUN).users == {}
        assert sorted(server.keys()) == [usage_key(RUN, "u1"), RUN_KEY]

    def test_what_is_visible_does_not_outlive_values_that_are_to_live_shorter(
        self, writer: UsageWriter, server: Redis
    ) -> None:
        """Even if the attempt is killed, or does not publish."""
        writer.write(RUN, 0, frame({"u1": {"a": 1}}))
        writer.publish(RUN)
        brief = UsageWriter(writer.redis_url, 60)
        brief.begin(RUN)
        brief.write(RUN, 0, frame({"u1": {"a": 1}}))
        assert 0 < server.pttl(RUN_KEY) <= server.pttl(usage_key(RUN, "u1"))

    def test_what_was_visible_once_is_written_again(self, writer: UsageWriter) -> None:
        writer.write(RUN, 0, frame({"u1": {"a": 1}}))
        writer.publish(RUN)
        writer.publish("later")
        assert writer.begin(RUN).users == {}

    def test_what_is_done_is_forgotten_when_half_of_its_life_is_over(self, writer: UsageWriter, server: Redis) -> None:
        for bucket in range(BUCKETS):
            writer.write(RUN, bucket, frame({user_of(bucket): {"a": 1}}))
        values = list(server.scan_iter(f"usage:{RUN}:*"))
        marks = set(server.keys()) - set(values)
        assert (len(values), len(marks)) == (BUCKETS, BUCKETS)
        assert max(map(server.ttl, marks)) <= 500 < 990 < min(map(server.ttl, values))

    @given(st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(20, 499), max_size=3))
    def test_the_run_does_not_outlive_the_oldest_of_its_values(
        self, redis_server: LocalRedis, ages_s: dict[int, int]
    ) -> None:
        """Else readers would take what has expired for no usage."""
        writer = UsageWriter(redis_server.url, 1000)
        with Redis.from_url(redis_server.url, decode_responses=True) as server:
            server.flushall()
            for bucket, age_s in ages_s.items():
                writer.write(RUN, bucket, frame({user_of(bucket): {"a": 1}}))
                for key in (usage_key(RUN, user_of(bucket)), *server.keys(f"usage-progress:{RUN}:*:{bucket}")):
                    server.pexpire(key, server.pttl(key) - age_s * 1000)
            begun = writer.begin(RUN)
            assert begun.users == dict.fromkeys(ages_s, 1)
            for bucket in set(range(3)) - set(ages_s):
                writer.write(RUN, bucket, frame({user_of(bucket): {"a": 1}}))
            writer.publish(RUN, until=begun.until)
            values = list(server.scan_iter(f"usage:{RUN}:*"))
            longer_ms = min(map(server.pttl, values)) - server.pttl(RUN_KEY)
            assert -10_000 < longer_ms < 10_000, "but for what a busy machine needs from one command to the next"

    def test_a_run_whose_first_values_have_expired_is_not_published(self, writer: UsageWriter) -> None:
        writer.publish("there")
        with pytest.raises(ExpiredRun, match=f"{RUN}: took longer than its first values live"):
            writer.publish(RUN, until=time.monotonic() - 0.001)
        assert writer.present() == "there"

    def test_what_was_to_live_longer_or_shorter_is_not_done(self, writer: UsageWriter) -> None:
        writer.write(RUN, 0, frame({"u1": {"a": 1}}))
        assert UsageWriter(writer.redis_url, 2000).begin(RUN).users == {}


class TestCluster:
    def test_a_cluster_takes_the_same_and_shows_it_to_the_same_readers(self, tmp_path: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000")
        with (
            RedisProcess(tmp_path / "a", *options, port=cluster_port()) as a,
            RedisProcess(tmp_path / "b", *options, port=cluster_port()) as b,
        ):
            join([a, b])
            writer = UsageWriter(f"redis+cluster://127.0.0.1:{a.port}", 1000)
            uses = {f"u{number} {{x}}: \r\n€": {"a": number + 1, "b c": 1} for number in range(50)}
            uses |= {f"u{number}": {"a": number + 1} for number in range(50)}
            assert writer.write(RUN, 5, frame(uses)) == len(uses)
            assert writer.begin(RUN).users == {5: len(uses)}
            assert read(writer.redis_url, "u1") == [{}]
            writer.publish(RUN, refuse_any)
            assert writer.present() == RUN
            assert read(writer.redis_url, *uses) == list(uses.values())
            sizes = []
            for node in (a, b):
                with node.client as client:
                    sizes.append(client.dbsize())
                    assert all(0 < client.ttl(key) <= 1000 for key in client.scan_iter("usage:2026*"))
            assert min(sizes) > 0
            assert sum(sizes) == len({shard(user) for user in uses}) + 1
