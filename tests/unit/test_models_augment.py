"""Noise on messages: small, seeded, never empty."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.augment import drop_words, mixed, noisy, typo

TEXT = "my card was declined at the supermarket this morning"
seeds = st.integers(0, 10_000)


def distance(a: str, b: str) -> int:
    """Edits between two strings; a swap of neighbours is one (Damerau, 1964)."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
            if i > 1 and j > 1 and (a[i - 2], x) == (y, b[j - 2]):
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


@given(st.text(max_size=30), seeds)
def test_typo_is_at_most_one_slip(text: str, seed: int) -> None:
    assert distance(text, typo(text, random.Random(seed))) <= 1


@pytest.mark.parametrize(
    "slip",
    ["ym card", "my ard", "my ccard", "my xard"],
    ids=["swapped", "lost", "doubled", "neighbouring key"],
)
def test_typo_makes_each_kind_of_slip(slip: str) -> None:
    assert slip in {typo("my card", random.Random(seed)) for seed in range(400)}


@pytest.mark.parametrize("text", ["", "pin", "a1b2c3", "12345 678"])
def test_text_with_few_letters_stays(text: str) -> None:
    assert {typo(text, random.Random(seed)) for seed in range(50)} == {text}


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=12), seeds, st.sampled_from([0.12, 0.5, 1.0]))
def test_words_are_lost_never_moved_and_never_all(words: list[str], seed: int, rate: float) -> None:
    text = " ".join(words)
    left = drop_words(text, random.Random(seed), rate).split()
    rest = iter(words)
    assert all(word in rest for word in left)
    assert bool(left) == bool(words)
    assert len(words) >= 4 or left == words


def test_loses_words_at_the_given_rate() -> None:
    left = drop_words(" ".join(map(str, range(2000))), random.Random(0), 0.12).split()
    assert len(left) / 2000 == pytest.approx(0.88, abs=0.03)


@given(seeds)
def test_noise_is_seeded_and_leaves_most_of_the_message(seed: int) -> None:
    once = noisy(TEXT, random.Random(seed))
    assert once == noisy(TEXT, random.Random(seed))
    assert len(set(once.split()) & set(TEXT.split())) >= 3


def test_noise_leaves_some_messages_alone_and_varies_the_others() -> None:
    variants = [noisy(TEXT, random.Random(seed)) for seed in range(400)]
    assert TEXT in variants
    assert len(set(variants)) > 200
    assert any(text.startswith("pls ") for text in variants)
    assert any(text.endswith("??") for text in variants)


@given(st.lists(st.text("ab ", max_size=10), min_size=1, max_size=4), seeds)
def test_mixture_starts_as_one_message_and_ends_as_another(texts: list[str], seed: int) -> None:
    result = mixed(texts, random.Random(seed)).split()
    halves = [(words[: (len(words) + 1) // 2], words[len(words) // 2 :]) for words in map(str.split, texts)]
    assert result in [start + end for start, _ in halves for _, end in halves]
