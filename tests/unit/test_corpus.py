"""The project's own corpus: enough of everything, labels that exist, and nothing that leaks into a test."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from models.data import CORPUS, OUT_OF_SCOPE, load, split
from models.duplicates import similar_pairs

HOLDOUT = CORPUS / "holdout"
OTHERS = CORPUS / "other_authors"
TAXONOMY = json.loads(Path(__file__).with_name("taxonomy.json").read_text())
TOPICS: dict[str, list[str]] = TAXONOMY["topics"]
SCREENS: dict[str, str | None] = TAXONOMY["screens"]
PRODUCTS = sorted(TOPICS)
FILES = sorted(CORPUS.rglob("*.jsonl"))
AMBIGUOUS = [folder / "ambiguous.jsonl" for folder in (CORPUS, HOLDOUT, OTHERS)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def clear() -> list[dict[str, Any]]:
    """Training rows that are clear without a context, out of scope included."""
    return [row for path in sorted(CORPUS.glob("*.jsonl")) if path.name != "ambiguous.jsonl" for row in rows(path)]


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_has_enough_messages_on_each_of_its_topics(product: str) -> None:
    own = rows(CORPUS / f"{product}.jsonl")
    assert len(own) >= 250
    assert {row["product"] for row in own} == {product}
    topics = Counter(row["topic"] for row in own)
    assert sorted(topics) == sorted(TOPICS[product])
    assert min(topics.values()) >= 20


def test_there_are_enough_messages_about_no_product_and_about_several() -> None:
    outside = rows(CORPUS / "out_of_scope.jsonl")
    assert len(outside) >= 450
    assert {row["product"] for row in outside} == {OUT_OF_SCOPE}
    assert len(rows(CORPUS / "ambiguous.jsonl")) >= 700


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORPUS)))
def test_labels_screens_and_usage_exist(path: Path) -> None:
    for example in load(path):
        assert example.text.strip()
        assert example.product in {*PRODUCTS, OUT_OF_SCOPE}
        assert set(example.recent_screens) <= set(SCREENS)
        assert set(example.product_usage_60d) <= set(PRODUCTS)
        assert min(example.product_usage_60d.values(), default=0) >= 0


@pytest.mark.parametrize("path", AMBIGUOUS, ids=["training", "holdout", "other authors"])
def test_every_ambiguous_message_is_about_several_products_and_settled_by_its_context(path: Path) -> None:
    products = defaultdict(set)
    for example in load(path):
        products[example.text].add(example.product)
        used = {product for product, uses in example.product_usage_60d.items() if uses}
        speaks_for = {SCREENS[screen] for screen in example.recent_screens} | used
        assert example.product in speaks_for, example
    assert [text for text, about in products.items() if len(about) < 2] == []


def test_no_clear_message_occurs_twice() -> None:
    texts = Counter(row["text"] for row in clear())
    assert [text for text, count in texts.items() if count > 1] == []


def test_no_near_duplicate_straddles_the_split() -> None:
    parts = split(load(CORPUS))
    side = {e.text: name for name, part in enumerate((parts.train, parts.validation, parts.test)) for e in part}
    texts = list(side)
    pairs = list(similar_pairs(texts, 0.6))
    assert [(texts[i], texts[j]) for i, j in pairs if side[texts[i]] != side[texts[j]]] == []
    assert len(parts.test) > 300
    assert {e.product for e in parts.test} == {*PRODUCTS, OUT_OF_SCOPE}


@pytest.mark.parametrize("folder", [HOLDOUT, OTHERS], ids=["holdout", "other authors"])
def test_holdouts_share_no_near_duplicate_with_training_rows(folder: Path) -> None:
    training, held = ({e.text: None for e in load(rows)} for rows in (CORPUS, folder))
    texts = [*training, *held]
    crossing = [(i, j) for i, j in similar_pairs(texts, 0.6) if i < len(training) <= j]
    assert [(texts[i], texts[j]) for i, j in crossing] == []


@pytest.mark.parametrize("folder", [HOLDOUT, OTHERS], ids=["holdout", "other authors"])
def test_holdouts_cover_every_product_and_what_lies_outside(folder: Path) -> None:
    assert {e.product for e in load(folder / "clear.jsonl")} == set(PRODUCTS)
    assert {e.product for e in load(folder / "ambiguous.jsonl")} == set(PRODUCTS)
    assert {e.product for e in load(folder / "out_of_scope.jsonl")} == {OUT_OF_SCOPE}
