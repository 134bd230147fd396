"""Simulated people and journeys: who owns what, what they look at, what they ask then."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.demo import PRODUCTS
from features.journeys import MAX_PAUSE_S, Journey, journeys, load_texts
from features.labelled import OUT_OF_SCOPE
from features.population import population
from features.taxonomy import NEUTRAL, PRODUCT_SCREENS, SCREENS

TAXONOMY = Path(__file__).with_name("taxonomy.json")


@pytest.fixture(scope="module")
def many() -> list[Journey]:
    return list(islice(journeys(1000, seed=3), 2000))


def lines(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    return lines(folder, "chats.jsonl", {"text": "why", "product": "loans"}, {"text": "hi", "product": OUT_OF_SCOPE})


def products_of(journey: Journey) -> set[str]:
    return {product for _, screen in journey.screens if (product := SCREENS[screen])}


class TestTaxonomy:
    def test_screens_are_those_of_the_corpus(self) -> None:
        assert json.loads(TAXONOMY.read_text())["screens"] == SCREENS

    def test_every_product_has_screens(self) -> None:
        assert PRODUCT_SCREENS.keys() == PRODUCTS.keys()


class TestPopulation:
    def test_products_are_owned_as_in_the_demo(self) -> None:
        shares = population(20_000, seed=1).owns.mean(axis=0)
        assert shares.tolist() == pytest.approx([share for share, _ in PRODUCTS.values()], abs=0.015)

    def test_fewer_users_are_the_first_of_more(self) -> None:
        few, more = population(10, seed=5), population(300, seed=5)
        assert few.owns.tolist() == more.owns[:10].tolist()
        assert few.activity.tolist() == more.activity[:10].tolist()

    def test_a_few_users_do_a_large_part(self) -> None:
        activity = np.sort(population(20_000).activity)
        assert activity.mean() == pytest.approx(1, rel=0.1)
        assert activity[-2000:].sum() / activity.sum() == pytest.approx(0.4, abs=0.05)

    def test_activity_does_not_follow_the_number(self) -> None:
        activity = np.log(population(20_000).activity)
        assert np.corrcoef(activity, np.arange(20_000))[0, 1] == pytest.approx(0, abs=0.03)

    def test_some_in_ten_thousand_own_nothing(self) -> None:
        assert 15 <= (~population(100_000).owns.any(axis=1)).sum() <= 50

    def test_active_users_are_drawn_more_often(self) -> None:
        people = population(50, seed=2)
        counts = np.bincount(people.draw(50_000, np.random.default_rng(0)), minlength=50)
        assert (counts / 50_000).tolist() == pytest.approx((people.activity / people.activity.sum()).tolist(), abs=0.01)

    @pytest.mark.parametrize(("users", "seed", "name"), [(0, 0, "users"), (3, -1, "seed")])
    def test_refuses(self, users: int, seed: int, name: str) -> None:
        with pytest.raises(ValueError, match=f"^{name}: "):
            population(users, seed)


class TestJourneys:
    def test_follow_from_the_seed(self, many: list[Journey]) -> None:
        assert list(islice(journeys(1000, seed=3), 600)) == many[:600]
        assert list(islice(journeys(1000, seed=4), 600)) != many[:600]

    def test_screens_come_before_the_message_oldest_first(self, many: list[Journey]) -> None:
        for journey in many:
            before = [seconds for seconds, _ in journey.screens]
            assert before == sorted(before, reverse=True)
            assert 0 < before[-1] <= MAX_PAUSE_S

    def test_enter_by_a_neutral_screen(self, many: list[Journey]) -> None:
        assert {journey.screens[0][1] for journey in many} == {"home", "search", "notifications"}
        assert {screen for journey in many for _, screen in journey.screens} <= SCREENS.keys()

    def test_look_at_one_to_four_screens_of_a_product_and_at_times_a_stray_one(self, many: list[Journey]) -> None:
        looked = [sum(screen not in NEUTRAL for _, screen in journey.screens) for journey in many]
        assert set(looked) == {0, 1, 2, 3, 4, 5}
        assert sum(len(products_of(journey)) == 2 for journey in many) / len(many) == pytest.approx(0.13, abs=0.03)
        assert max(len(products_of(journey)) for journey in many) == 2

    def test_a_stray_screen_is_of_a_product_that_the_user_owns(self, many: list[Journey]) -> None:
        owns, names = population(1000, seed=3).owns, list(PRODUCTS)
        strays = [
            (j.user_id, stray) for j in many for stray in products_of(j) - {j.product} if j.product in products_of(j)
        ]
        owned = [owns[int(user[1:]) - 1, names.index(stray)] for user, stray in strays]
        assert len(owned) > 200
        assert np.mean(owned) > 0.98

    def test_ask_mostly_about_what_they_saw(self, many: list[Journey]) -> None:
        asked = [journey for journey in many if journey.product != OUT_OF_SCOPE]
        others = asked[1:] + asked[:1]
        own = sum(journey.product in products_of(journey) for journey in asked) / len(asked)
        chance = sum(a.product in products_of(b) for a, b in zip(asked, others, strict=True)) / len(asked)
        assert own == pytest.approx(0.86, abs=0.03)
        assert chance < 0.35

    def test_some_ask_about_nothing_that_a_desk_knows(self, many: list[Journey]) -> None:
        assert sum(journey.product == OUT_OF_SCOPE for journey in many) / len(many) == pytest.approx(0.06, abs=0.02)

    def test_every_product_is_asked_about_in_words_of_its_own(self, many: list[Journey]) -> None:
        texts = load_texts()
        assert {journey.product for journey in many} == {*PRODUCTS, OUT_OF_SCOPE}
        assert all(journey.text in texts[journey.product] for journey in many)

    @given(users=st.integers(1, 40), seed=st.integers(0, 2**64))
    def test_any_population_makes_journeys(self, few_texts: Path, users: int, seed: int) -> None:
        numbers = {f"u{i}" for i in range(1, users + 1)}
        for journey in islice(journeys(users, seed, few_texts), 20):
            assert journey.user_id in numbers
            assert journey.screens

    def test_only_products_with_messages_are_asked_about(self, tmp_path: Path) -> None:
        path = lines(tmp_path, "chats.jsonl", {"text": "no pix", "product": "transfers"})
        asked = list(islice(journeys(50, messages_file=path), 300))
        assert {(journey.text, journey.product) for journey in asked} == {("no pix", "transfers")}
        assert len(set().union(*map(products_of, asked))) > 1


class TestLoadTexts:
    def test_reads_the_files_of_a_folder_but_not_of_its_subfolders(self, tmp_path: Path) -> None:
        (tmp_path / "holdout").mkdir()
        lines(tmp_path / "holdout", "c.jsonl", {"text": "kept back", "product": "loans"})
        lines(tmp_path, "b.jsonl", {"text": "b", "product": "loans", "topic": "x"}, {"text": "a", "product": "loans"})
        lines(tmp_path, "a.jsonl", {"text": "a", "product": "loans"}, {"text": "hm", "product": "out_of_scope"})
        assert load_texts(tmp_path) == {"loans": ["a", "b"], "out_of_scope": ["hm"]}

    def test_reads_what_training_reads(self, tmp_path: Path) -> None:
        (tmp_path / "c.csv").write_text("text,category\na, loans\nhm,oos\n")
        assert load_texts(tmp_path / "c.csv") == {"loans": ["a"], "out_of_scope": ["hm"]}

    def test_reads_nothing_of_the_hold_out(self) -> None:
        files = Path(__file__).parents[2].glob("models/corpus/*.jsonl")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        corpus = {(row["product"], row["text"]) for row in rows}
        assert {(product, text) for product, texts in load_texts().items() for text in texts} == corpus

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            ("{", "chats.jsonl:1: not JSON"),
            ('{"text": "a", "product": "loans"}\n\n[1]', "chats.jsonl:3: expected an object, got list"),
            ('{"text": "", "product": "loans"}', "chats.jsonl:1: column 'text' is empty"),
            ('{"text": "\\ud800", "product": "loans"}', "chats.jsonl:1: column 'text': not UTF-8"),
            ('{"text": "a", "product": "lones"}', "chats.jsonl:1: column 'product': 'lones' is none of"),
            ('{"text": "a"}', "chats.jsonl:1: no 'product' or 'category'"),
            ('{"text": "a", "product": "out_of_scope"}', "chats.jsonl: no message about a product"),
            ("", "chats.jsonl: the file holds no rows"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, content: str, error: str) -> None:
        path = tmp_path / "chats.jsonl"
        path.write_text(content)
        with pytest.raises(ValueError, match=error):
            load_texts(path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"nowhere\.jsonl: no such file"):
            load_texts(tmp_path / "nowhere.jsonl")
