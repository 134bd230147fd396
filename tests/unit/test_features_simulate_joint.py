"""How simulated usage, screens and messages hang together: read from disk, as a training set would be."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from features.labelled import OUT_OF_SCOPE
from features.taxonomy import SCREENS
from tests.unit.simulated import LAST, chats, rows, run, screens_before


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    run(folder, users=2000, days=6, events=40_000, messages=1500, seed=7)
    return folder


def test_every_message_has_screens_before_it(out: Path) -> None:
    assert all(screens for _, screens in screens_before(out))


def test_people_ask_about_what_they_browsed(out: Path) -> None:
    pairs = [(chat["product"], screens) for chat, screens in screens_before(out) if chat["product"] != OUT_OF_SCOPE]
    seen = [{SCREENS[screen] for screen in screens} for _, screens in pairs]
    own = sum(product in products for (product, _), products in zip(pairs, seen, strict=True)) / len(pairs)
    shifted = seen[1:] + seen[:1]
    chance = sum(product in products for (product, _), products in zip(pairs, shifted, strict=True)) / len(pairs)
    assert own > 0.8
    assert chance < 0.35


def test_people_ask_about_what_they_use(out: Path) -> None:
    used = {(user, product) for user, product in rows(out / "usage")[["user_id", "product"]].unique().iter_rows()}
    asked = [chat for chat in chats(out) if chat["product"] != OUT_OF_SCOPE]
    users = [chat["user_id"] for chat in asked]
    own = sum((chat["user_id"], chat["product"]) in used for chat in asked) / len(asked)
    other = zip(users[1:] + users[:1], asked, strict=True)
    chance = sum((user, chat["product"]) in used for user, chat in other) / len(asked)
    assert own > 0.75
    assert own > chance + 0.1


def test_as_many_browse_without_asking(out: Path) -> None:
    asking = {chat["user_id"] for chat in chats(out)}
    browsing = set(rows(out / "screens")["user_id"])
    assert asking < browsing
    assert len(browsing - asking) > 0.3 * len(asking)


def test_screens_lie_in_the_order_of_arrival_not_of_time(out: Path) -> None:
    for path in (out / "screens" / f"day={LAST}").iterdir():
        screens = pl.read_parquet(path)
        assert screens["arrived_at"].is_sorted()
        assert not screens["at"].is_sorted()
        assert (screens["arrived_at"] >= screens["at"]).all()


def test_a_journey_may_cross_midnight(out: Path) -> None:
    eve = rows(out / "screens" / f"day={LAST - timedelta(days=1)}")
    assert 0 < eve.height < 50
    assert (eve["at"].dt.hour() == 23).all()
