"""Request bodies for load: as many distinct messages as one likes, or popular ones that repeat by a Zipf law."""

import json
import random
import re
from collections.abc import Iterator

from loadtests.population import USERS
from loadtests.traffic import Zipf, chats

DISTINCT = 20_000
"""Messages that Zipf draws from; they are the first ones, so unique messages begin behind them."""
MAX_OPENING = 8
"""Words of an opening: so that messages are on average as long as the corpus' own, 16 tokens."""
_WHEN = (
    "today", "yesterday", "this morning", "last night", "on monday", "on tuesday", "on wednesday", "on thursday",
    "on friday", "on saturday", "on sunday", "last week", "last month", "in january", "in february", "in march",
    "in april", "in may", "in june", "in july", "in august", "in october", "in november", "just now", "again",
    "a minute ago", "an hour ago", "at noon", "at midnight", "since easter",
)  # fmt: skip
_WHERE = (
    "at the airport", "at home", "at work", "in the shop", "on the train", "at the station", "in the app",
    "on the website", "at the branch", "in lisbon", "in london", "in berlin", "in paris", "in madrid", "in rome",
    "on my phone", "on my laptop", "at the hotel", "at the market", "in the office", "at school", "at the pharmacy",
    "in the car", "on the bus", "at the bakery", "near the bank", "abroad", "in town", "at the gym", "upstairs",
)  # fmt: skip
_END = (
    "please help", "any idea", "what now", "thank you", "please advise", "is that normal", "why", "how come",
    "can you check", "who can help", "what should i do", "it is urgent", "no hurry", "my wife asks",
    "my husband asks", "my son asks", "my boss asks", "my landlord asks", "kind regards", "best wishes",
    "hope to hear soon", "call me", "write to me", "this is new to me", "second time", "third time", "sorry to ask",
    "hello there", "good morning", "good evening",
)  # fmt: skip
_PLAIN = (
    "card", "account", "money", "bank", "app", "loan", "fee", "limit", "transfer", "payment", "salary", "rent",
    "bill", "invoice", "contract", "branch", "clerk", "letter", "email", "phone", "number", "code", "address",
    "house", "car", "school", "travel", "hotel", "flight", "train", "shop", "market", "doctor", "lawyer", "tax",
    "saving", "stock", "fund", "bond", "gold",
)  # fmt: skip
_SUFFIXES = len(_WHEN) * len(_WHERE) * len(_END)
_STEP = 7919
"""Prime to the number of suffixes: successive ones of the same opening look nothing alike."""


class Messages:
    """Message i for any i below 6·10⁷: one of the corpus' and a few words more; no two are equal when normalised."""

    def __init__(self) -> None:
        by_words = {" ".join(re.findall(r"\w+", chat.text.lower())): chat.text for chat in chats()}
        self._openings = sorted(text for words, text in by_words.items() if words.count(" ") < MAX_OPENING)
        random.Random(0).shuffle(self._openings)

    def __getitem__(self, i: int) -> str:
        turn, opening = divmod(i, len(self._openings))
        rest, when = divmod((turn * _STEP + opening) % _SUFFIXES, len(_WHEN))
        end, where = divmod(rest, len(_WHERE))
        return f"{self._openings[opening]} {_WHEN[when]} {_WHERE[where]}, {_END[end]}"

    def unique(self, start: int, words: int | None = None) -> Iterator[str]:
        """Messages that differ from each other, from those of other starts a stretch apart, and from `popular` ones.

        Args:
            start: number of the first.
            words: make each this long instead, at least four.
        """
        i = DISTINCT + start
        while True:
            yield self[i] if words is None else self._sized(i, words)
            i += 1

    def popular(self, rng: random.Random) -> Iterator[str]:
        """Draws from 20,000 messages, the k-th of which is 1/k as frequent as the first."""
        zipf = Zipf(DISTINCT, 1.0, rng)
        while True:
            yield self[zipf.draw()]

    def _sized(self, i: int, words: int) -> str:
        """Four words that no other i has, filled up from the corpus."""
        digits = [i // len(_PLAIN) ** k % len(_PLAIN) for k in range(4)]
        fill = " ".join(self._openings[(i + k) % len(self._openings)] for k in range(words)).split()
        return " ".join([*(_PLAIN[digit] for digit in digits), *fill][:words])


def bodies(texts: Iterator[str], count: int, rng: random.Random, users: int = USERS) -> list[str]:
    """`count` request bodies, each from one of the demo users u1, u2, …"""
    return [json.dumps({"user_id": f"u{rng.randint(1, users)}", "text": next(texts)}) for _ in range(count)]
