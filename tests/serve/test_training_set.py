"""Training sets from files on Ray Data: what was known when a message was sent, and nothing later."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.bundled import bundled_preprocessor
from features.preprocess import Preprocessor
from features.ray_session import session
from features.store import StoreConfig
from features.training_set import run_before
from models.context_sampling import context_inputs
from models.data import load
from tests.unit.offline_world import NOON, Screen, Use, build, screens_then, usage_then, write_world
from tests.unit.simulated import chats, rows, run

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with session(cpus=2):
        yield


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return bundled_preprocessor()


def valid_uses(world: Path) -> pl.DataFrame:
    log = rows(world / "usage").filter(pl.col("at").dt.date() == pl.col("day"))
    return log.filter(pl.col("user_id") != "", pl.col("product") != "")


def written(world: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world / "set.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    run(world, users=200, days=63, events=12_000, messages=300, seed=3, malformed=0.01)
    return world


@pytest.fixture(scope="module")
def summary(world: Path, preprocessor: Preprocessor) -> dict[str, Any]:
    return build(world, preprocessor)


@pytest.mark.usefixtures("summary")
class TestSimulated:
    def test_rows_have_the_features_of_the_definition(
        self, world: Path, summary: dict[str, Any], preprocessor: Preprocessor
    ) -> None:
        seen = [Screen(*row) for row in rows(world / "screens").drop("day").iter_rows()]
        log = valid_uses(world).unique("event_id")
        used = [Use(*row) for row in log.select("user_id", "product", "at").iter_rows()]
        expected = []
        for chat in chats(world):
            at = datetime.fromisoformat(chat["at"])
            context = preprocessor.context(
                screens_then(seen, chat["user_id"], at, StoreConfig()),
                usage_then(used, chat["user_id"], run_before(at), 60),
            )
            features = {
                "recent_screens": list(context.recent_screens),
                "product_usage_60d": dict(context.product_usage_60d),
            }
            expected.append(chat | features)
        assert written(world) == expected
        assert summary["rows"] == len(expected) == 300
        assert summary["with_screens"] == sum(bool(row["recent_screens"]) for row in expected) > 200
        assert summary["with_usage"] == sum(bool(row["product_usage_60d"]) for row in expected) > 200
        assert summary["malformed"] > 0

    @pytest.mark.parametrize("name", ["set.jsonl", "set.csv"])
    def test_training_reads_what_was_written(self, world: Path, preprocessor: Preprocessor, name: str) -> None:
        build(world, preprocessor, name)
        examples = load(world / name)
        assert [(e.text, e.product) for e in examples] == [(row["text"], row["product"]) for row in written(world)]
        contexts = context_inputs(preprocessor, examples)
        assert [list(c.recent_screens) for c in contexts] == [row["recent_screens"] for row in written(world)]
        assert [c.product_usage_60d for c in contexts] == [row["product_usage_60d"] for row in written(world)]

    def test_daily_aggregates_are_used_again(self, world: Path, preprocessor: Preprocessor) -> None:
        again = build(world, preprocessor)
        assert (again["days_read"], again["days_reused"]) == (0, 61)


def test_days_that_no_chat_needs_are_neither_read_nor_missed(tmp_path: Path, preprocessor: Preprocessor) -> None:
    sent = {"ana": NOON, "ben": NOON + timedelta(days=100)}
    used = [-3, -2, 50, 98]  # days from the first chat's; the windows are -2 and -1, 98 and 99
    uses = [Use(user, "loans", NOON + timedelta(days=day)) for user in sent for day in used]
    screens = [Screen("e1", "ana", "home", NOON - timedelta(minutes=1))]
    told = build(write_world(tmp_path, screens, uses, sent), preprocessor, window_days=2)
    assert (told["days_read"], told["days_reused"], told["days_missing"]) == (2, 0, 2)
    assert [row["product_usage_60d"] for row in written(tmp_path)] == [{"loans": 1}, {"loans": 1}]


US = timedelta(microseconds=1)
users = [f"u{i}" for i in range(60)]


def draw(rng: random.Random, late: bool, sent: dict[str, datetime]) -> tuple[list[Screen], list[Use]]:
    """Screens and uses of each user that were known when the message was sent, or, if `late`, were not."""
    screens, uses = [], []
    for user, at in sent.items():
        run_day = datetime.combine(run_before(at), datetime.min.time(), UTC)
        for _ in range(rng.randint(1, 4)):
            name = f"e{rng.random()}"
            if late:
                arrived = at + rng.choice([US, timedelta(seconds=rng.random() + 1e-5), timedelta(minutes=7)])
                happened = min(arrived, at + timedelta(seconds=rng.uniform(-1700, 200)))
                used = run_day + rng.choice([timedelta(), US, timedelta(hours=rng.uniform(0, 50))])
            else:
                arrived = at - timedelta(seconds=rng.uniform(0, 800))
                happened = arrived - timedelta(seconds=rng.uniform(0, 900))
                used = run_day - rng.choice([US, timedelta(days=60), timedelta(days=rng.uniform(1e-6, 60))])
            screens.append(Screen(name, user, f"s{rng.randint(0, 9)}", happened, arrived))
            uses.append(Use(user, rng.choice(["loans", "security"]), used))
    return screens, uses


class TestLeakage:
    """Messages at all hours of three days, one a user."""

    @pytest.fixture
    def sent(self) -> dict[str, datetime]:
        rng = random.Random(5)
        edges = [timedelta(hours=h) + d for h in (-12, -9, 12, 15) for d in (-US, timedelta(), US)]
        hours = [*edges, *(timedelta(hours=rng.uniform(-36, 36)) for _ in users[len(edges) :])]
        return {user: NOON + hour for user, hour in zip(users, hours, strict=True)}

    def test_later_events_change_nothing(
        self, tmp_path: Path, preprocessor: Preprocessor, sent: dict[str, datetime]
    ) -> None:
        known, later = (draw(random.Random(seed), late, sent) for seed, late in ((1, False), (2, True)))
        before = write_world(tmp_path / "before", *known, sent)
        after = write_world(tmp_path / "after", known[0] + later[0], known[1] + later[1], sent)
        build(before, preprocessor)
        build(after, preprocessor)
        assert all(row["recent_screens"] and row["product_usage_60d"] for row in written(before))
        assert written(after) == written(before)

    def test_earlier_events_change_every_row(
        self, tmp_path: Path, preprocessor: Preprocessor, sent: dict[str, datetime]
    ) -> None:
        known = draw(random.Random(1), False, sent)
        screens = [Screen(f"x{user}", user, "just_seen", at, at) for user, at in sent.items()]
        last = {user: datetime.combine(run_before(at), datetime.min.time(), UTC) - US for user, at in sent.items()}
        uses = [Use(user, "insurance", at) for user, at in last.items()]
        after = write_world(tmp_path / "after", known[0] + screens, known[1] + uses, sent)
        build(after, preprocessor)
        assert all(row["recent_screens"][-1] == "just_seen" for row in written(after))
        assert all(row["product_usage_60d"]["insurance"] == 1 for row in written(after))
