"""Messages for load: distinct where they should be, popular where they should be, as long as real ones."""

import json
import random
from collections import Counter
from itertools import islice
from statistics import mean

import pytest

from loadtests.messages import DISTINCT, Messages, bodies
from loadtests.traffic import chats
from models.bundle import Bundle

MESSAGES = Messages()


@pytest.mark.parametrize("words", [None, 4, 90])
def test_unique_messages_differ_in_their_tokens(bundle: Bundle, words: int | None) -> None:
    """Else the cache would know some of them."""
    texts = [*islice(MESSAGES.unique(0, words), 5_000), *islice(MESSAGES.unique(250_000, words), 5_000)]
    assert len({tokens.tobytes() for tokens in bundle.preprocessor.tokens(texts)}) == 10_000


def test_unique_messages_are_none_of_the_popular_ones() -> None:
    popular = {MESSAGES[i] for i in range(DISTINCT)}
    assert len(popular) == DISTINCT
    assert popular.isdisjoint(islice(MESSAGES.unique(0), DISTINCT))


def test_messages_are_as_long_as_the_corpus_own(bundle: Bundle) -> None:
    theirs, ours = (
        mean(len(tokens) for tokens in bundle.preprocessor.tokens(texts))
        for texts in ([chat.text for chat in chats()], list(islice(MESSAGES.unique(0), 5_000)))
    )
    assert ours == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize("words", [4, 16, 90])
def test_sized_messages_have_that_many_words(words: int) -> None:
    assert {len(text.split()) for text in islice(MESSAGES.unique(7, words), 1_000)} == {words}


def test_popular_messages_follow_zipf() -> None:
    """The first of n is drawn with probability 1 / (1 + 1/2 + … + 1/n), the second with half of it."""
    counts = Counter(islice(MESSAGES.popular(random.Random(1)), 50_000))
    harmonic = sum(1 / k for k in range(1, DISTINCT + 1))
    assert counts[MESSAGES[0]] / 50_000 == pytest.approx(1 / harmonic, rel=0.05)
    assert counts[MESSAGES[1]] / 50_000 == pytest.approx(1 / harmonic / 2, rel=0.05)


def test_bodies_are_of_the_demo_users() -> None:
    rows = [json.loads(body) for body in bodies(iter("abc"), 3, random.Random(0), users=2)]
    assert [row["text"] for row in rows] == ["a", "b", "c"]
    assert {row["user_id"] for row in rows} <= {"u1", "u2"}
