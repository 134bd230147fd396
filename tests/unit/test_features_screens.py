"""Recent screens as they are written: the same set for any order, repetition and batching, on a real Redis."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from features import screens
from features.schema import ScreenEvent

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEEP, WINDOW_S = 3, 600

events = st.builds(
    lambda number, user, screen, at_us: ScreenEvent(f"e{number}", user, screen, START + timedelta(microseconds=at_us)),
    st.integers(0, 5),
    st.sampled_from(["ana", "bo", "ü:*"]),
    st.sampled_from(["home", "card", "á\x1fb"]),
    st.integers(0, 5_000),
)


def expected(seen: Sequence[ScreenEvent]) -> dict[str, list[tuple[str, float]]]:
    """What a user's set must hold: of each event id and screen the newest, of these the newest few."""
    newest: dict[tuple[str, str], int] = {}
    for event in seen:
        member = f"{event.event_id}\x1f{event.screen}"
        at_ms = (event.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        newest[event.user_id, member] = max(at_ms, newest.get((event.user_id, member), at_ms))
    users: dict[str, list[tuple[str, float]]] = {}
    for (user, member), at_ms in sorted(newest.items(), key=lambda item: (item[1], item[0][1].encode())):
        users.setdefault(user, []).append((member, float(at_ms)))
    return {user: pairs[-KEEP:] for user, pairs in users.items()}


async def stored(redis: Redis) -> dict[str, list[tuple[str, float]]]:
    """Every set in the store; the user is what follows `screens:`."""
    sets: dict[str, Any] = {str(key): await redis.zrange(key, 0, -1, withscores=True) for key in await redis.keys("*")}
    return {key.removeprefix("screens:"): pairs for key, pairs in sets.items()}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, max_size=25), st.integers(1, 9), st.randoms(use_true_random=False))
async def test_order_repetition_and_batching_change_nothing(
    redis: Redis, seen: list[ScreenEvent], batch: int, rng: random.Random
) -> None:
    arrivals = seen + rng.sample(seen, len(seen) // 2)
    rng.shuffle(arrivals)
    await redis.flushall()
    for first in range(0, len(arrivals), batch):
        await screens.write(redis, arrivals[first : first + batch], KEEP, WINDOW_S)
    assert await stored(redis) == expected(seen)


@pytest.mark.parametrize("users", [1, screens.USERS_PER_CALL, screens.USERS_PER_CALL + 1])
async def test_many_users_and_many_events_of_one_fit_in_a_batch(redis: Redis, users: int) -> None:
    seen = [ScreenEvent(f"e{i}", f"u{i % users}", "home", START + timedelta(milliseconds=i)) for i in range(10_000)]
    await screens.write(redis, seen, KEEP, WINDOW_S)
    assert await stored(redis) == expected(seen)


async def test_fifty_screens_are_kept_where_so_configured(redis: Redis) -> None:
    await screens.write(
        redis, [ScreenEvent(f"e{i}", "ana", "home", START + timedelta(seconds=i)) for i in range(80)], 50, WINDOW_S
    )
    assert await redis.zrange(screens.key("ana"), 0, 0) == ["e30\x1fhome"]
    assert await redis.zcard(screens.key("ana")) == 50


async def test_a_set_outlives_the_newest_screen_that_a_fast_clock_may_give_it(redis: Redis) -> None:
    """A screen may be stamped five minutes ahead, and is recent for the window after that."""
    await screens.write(redis, [ScreenEvent("e1", "ana", "home", START)], KEEP, WINDOW_S)
    assert WINDOW_S + 290 <= await redis.ttl(screens.key("ana")) <= WINDOW_S + 300
    await redis.expire(screens.key("ana"), 5)
    await screens.write(redis, [ScreenEvent("e2", "ana", "home", START)], KEEP, WINDOW_S)
    assert await redis.ttl(screens.key("ana")) >= WINDOW_S + 290


async def test_nothing_to_write_is_no_error(redis: Redis) -> None:
    await screens.write(redis, [], KEEP, WINDOW_S)
    assert await redis.keys("*") == []
