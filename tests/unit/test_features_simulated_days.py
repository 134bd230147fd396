"""Simulated days: when people are active, rows made malformed on purpose, and one day in memory at a time."""

from collections import Counter
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from features.population import PRODUCT_NAMES, population
from features.simulated_days import HOURS, WEEK, scale_for, usage_days

SUNDAY = date(2026, 11, 1)
WEEKDAYS = [SUNDAY + timedelta(days=ahead) for ahead in range(7)]


def test_activity_follows_the_week_and_the_day() -> None:
    days = {day: pl.DataFrame(table) for day, table, _ in usage_days(population(5000), WEEKDAYS, seed=1)}
    total = sum(table.height for table in days.values())
    shares = [days[day].height / total * 7 for day in WEEKDAYS]
    assert shares == pytest.approx([WEEK[day.weekday()] for day in WEEKDAYS], abs=0.04)
    hours = Counter(hour for table in days.values() for hour in table["at"].dt.hour())
    assert [hours[hour] / total for hour in range(24)] == pytest.approx([w / sum(HOURS) for w in HOURS], abs=0.005)


def test_people_use_only_what_they_own_and_nearly_all_of_it() -> None:
    people = population(200, seed=4)
    (_, table, _), *_ = usage_days(people, [SUNDAY], seed=4, scale=60.0)
    used = {(user, product) for user, product in pl.DataFrame(table)[["user_id", "product"]].unique().iter_rows()}
    owned = {(f"u{row + 1}", PRODUCT_NAMES[column]) for row, column in np.argwhere(people.owns)}
    assert used < owned
    assert len(used) > 0.85 * len(owned)


def test_uses_vary_by_user_and_not_by_number() -> None:
    days = usage_days(population(2000, seed=2), WEEKDAYS, seed=2)
    uses = Counter(user for _, table, _ in days for user in table["user_id"].to_pylist())
    busiest = uses.most_common(200)
    assert sum(count for _, count in busiest) / uses.total() == pytest.approx(0.42, abs=0.06)
    assert sum(int(user[1:]) for user, _ in busiest) / 200 == pytest.approx(1000, abs=150)


@pytest.mark.parametrize("first", [0, 5], ids=["Sunday", "Friday"])
def test_scale_allows_for_the_weekday(first: int) -> None:
    people, days = population(3000), WEEKDAYS[first : first + 1]
    (_, table, counts), *_ = usage_days(people, days, seed=0, scale=scale_for(people, days, 9000))
    assert table.num_rows - counts["redelivered"] == pytest.approx(9000, rel=0.04)


def test_nobody_who_owns_nothing_uses_anything() -> None:
    people = population(20)
    people.owns[:] = False
    assert scale_for(people, WEEKDAYS, 100) == 0
    assert [table.num_rows for _, table, _ in usage_days(people, WEEKDAYS, seed=0)] == [0] * 7


def test_malformed_rows_are_of_every_kind() -> None:
    people = population(500)
    (_, table, counts), *_ = usage_days(people, [SUNDAY], seed=0, scale=20.0, malformed=0.3)
    usage = pl.DataFrame(table)
    off = (pl.col("at").dt.date() - SUNDAY).dt.total_days()
    kinds = {
        "no user": pl.col("user_id").is_null(),
        "empty user": pl.col("user_id") == "",
        "no product": pl.col("product").is_null(),
        "empty product": pl.col("product") == "",
        "no time": pl.col("at").is_null(),
        "another day": off != 0,
    }
    shares = {kind: usage.filter(found).height / usage.height for kind, found in kinds.items()}
    assert shares == pytest.approx(dict.fromkeys(kinds, 0.05), abs=0.01)
    assert usage.filter(pl.any_horizontal(*kinds.values())).height == counts["malformed"]
    assert usage.select(off.min().alias("min"), off.max().alias("max")).row(0) == (-30, 30)


def test_days_are_made_one_at_a_time() -> None:
    asked = []
    dates = (asked.append(day) or day for day in WEEKDAYS)  # type: ignore[func-returns-value]
    days = usage_days(population(10), dates, seed=0)
    assert asked == []
    assert next(days)[0] == SUNDAY
    assert asked == [SUNDAY]
