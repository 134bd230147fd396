"""Noise as in hurried messages: typos, lost words, greetings and endings; and mixtures of two messages."""

import random
from collections.abc import Sequence

_NEIGHBOURS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, key in enumerate(row)
}
_POLITE = ("hi ", "hello, ", "hey ", "pls ", "please help, ", "good morning ", "sorry to bother but ", "so ")
_CLOSING = (
    " pls",
    " please",
    " thanks",
    " thank you",
    " asap",
    " urgent",
    "!!",
    "??",
    " \U0001f62d",
    " \U0001f64f",
    " thx",
)


def typo(text: str, rng: random.Random) -> str:
    """One slip: a swap, a lost, doubled or neighbouring letter."""
    letters = [i for i, char in enumerate(text) if char.isalpha()]
    if len(letters) < 4:
        return text
    i = rng.choice(letters)
    kind = rng.randrange(4)
    if kind == 0 and i + 1 < len(text):
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    if kind == 2:
        return text[:i] + text[i] + text[i:]
    neighbours = _NEIGHBOURS.get(text[i].lower(), "")
    return text[:i] + rng.choice(neighbours) + text[i + 1 :] if neighbours else text


def drop_words(text: str, rng: random.Random, rate: float = 0.12) -> str:
    """Lose some words, never all."""
    words = text.split()
    if len(words) < 4:
        return text
    return " ".join([word for word in words if rng.random() >= rate] or words)


def noisy(text: str, rng: random.Random) -> str:
    """A message with the same meaning as a hurried person might type it."""
    if rng.random() < 0.3:
        text = drop_words(text, rng)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        text = typo(text, rng)
    if rng.random() < 0.15:
        text = rng.choice(_POLITE) + text
    if rng.random() < 0.15:
        text += rng.choice(_CLOSING)
    return text


def mixed(texts: Sequence[str], rng: random.Random) -> str:
    """The start of one message and the end of another: unlabelled text for a teacher to label."""
    first, second = rng.choice(texts).split(), rng.choice(texts).split()
    return " ".join(first[: (len(first) + 1) // 2] + second[len(second) // 2 :])
