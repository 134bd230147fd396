"""Near-duplicates: the prefix filter finds what comparing every pair finds."""

import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.preprocess import wordless
from models.duplicates import clusters, similar_pairs, word_set

NORMALISE = wordless().normalise

texts = st.lists(st.text("abcdef   ", max_size=16), max_size=25)
thresholds = st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.8, 1.0])


def brute_force(messages: list[str], threshold: float) -> set[tuple[int, int]]:
    """Every pair whose word sets have the wanted Jaccard similarity."""
    sets = [word_set(message) for message in messages]
    return {(i, j) for (i, a), (j, b) in combinations(enumerate(sets), 2) if len(a & b) >= threshold * len(a | b)}


@given(texts, thresholds)
def test_prefix_filter_equals_brute_force(messages: list[str], threshold: float) -> None:
    found = list(similar_pairs(messages, threshold))
    assert len(found) == len(set(found))
    assert set(found) == brute_force(messages, threshold)


@given(texts, thresholds)
def test_clusters_are_the_connected_components(messages: list[str], threshold: float) -> None:
    component = {i: {i} for i in range(len(messages))}
    normal = [NORMALISE(message) for message in messages]
    same = {(i, j) for i, j in combinations(range(len(messages)), 2) if normal[i] == normal[j]}
    for i, j in brute_force(messages, threshold) | same:
        merged = component[i] | component[j]
        component.update(dict.fromkeys(merged, merged))
    assert clusters(messages, threshold) == [min(component[i]) for i in range(len(messages))]


@pytest.mark.parametrize(
    ("one", "other", "similar"),
    [
        ("it got declined again", "It got DECLINED again!!", True),
        ("a b c d", "a b c e", True),
        ("a b c", "a b d", False),
        ("why was it declined", "close my account", False),
        ("???", "???  ", True),
        ("???", "!!!", False),
        ("", " ", True),
    ],
)
def test_similarity_of_six_in_ten_words(one: str, other: str, similar: bool) -> None:
    assert list(similar_pairs([one, other])) == ([(0, 1)] if similar else [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 4071882231", "order 9350017764"),
        ("não pago", unicodedata.normalize("NFD", "não pago")),
        ("card ＢＬＯＣＫＥＤ", "card blocked"),
        ("soooo slow", "soooooo slow"),
    ],
)
def test_messages_that_are_one_to_the_networks_are_one_cluster(one: str, other: str) -> None:
    assert list(similar_pairs([one, other])) == []
    assert clusters(["unlike", one, other]) == [0, 1, 1]


def test_chain_of_neighbours_is_one_cluster() -> None:
    chain = ["a b c d", "b c d e", "c d e f", "x y z"]
    assert list(similar_pairs(chain)) == [(0, 1), (1, 2)]
    assert clusters(chain) == [0, 0, 0, 3]


def test_thousands_of_equal_messages_take_no_longer_than_one() -> None:
    """In pairs they would be two hundred million."""
    messages = ["hi", "my card is gone"] * 10_000
    assert set(clusters(messages)) == {0, 1}
