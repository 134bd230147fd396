"""Figures of parts of the labelled chats: by length, typos and unknown tokens; the served parts, no torch."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from string import ascii_lowercase
from typing import Any

from tokenizers import Tokenizer

from features.preprocess import Preprocessor
from models.augment import noisy
from models.bundle import Bundle
from models.classifier import TextClassifier
from models.data import OUT_OF_SCOPE, Example
from models.evaluate import Scores, metrics, score

SHORT, MEDIUM = 6, 12
"""The most tokens of a short and of a medium message, the special ones left out; a long one has more."""
SLICES = {
    "short": f"up to {SHORT} tokens",
    "medium": f"{SHORT + 1} to {MEDIUM} tokens",
    "long": f"more than {MEDIUM} tokens",
    "typos": "a word that one slip makes a known one",
    "out_of_vocabulary": "a token unknown to the tokenizer",
}
FIGURES = ("n", "accuracy", "ece", "coverage")
WORD_START = ("\u0120", "\u2581")
"""What byte-level and Metaspace tokenizers put before a piece that begins a word; WordPiece marks the others."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_MAX_LETTERS = 24
"""Letters; a longer run of them is no word with a slip in it."""


def slices(bundle: Bundle, scores: Scores, examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Figures of the in-scope rows that belong together, by slice in the order of `SLICES`; none of empty slices.

    Args:
        scores: of the same rows in the same order, see `evaluate.score`.

    Returns:
        For each slice its n, accuracy, ece and coverage, see `evaluate.metrics`. Every row is in one slice of
        length; a row may be in several of the others, or in none.
    """
    inside = [i for i, example in enumerate(examples) if example.product != OUT_OF_SCOPE]
    members: dict[str, list[int]] = {name: [] for name in SLICES}
    for i, names in zip(inside, memberships(bundle.preprocessor, [examples[i].text for i in inside]), strict=True):
        for name in names:
            members[name].append(i)
    report = {}
    for name, rows in members.items():
        if rows:
            part = Scores(scores.text[rows], scores.context[rows])
            figures = metrics(bundle.manifest, part, [examples[i].product for i in rows])
            report[name] = {figure: figures[figure] for figure in FIGURES}
    return report


def noisy_accuracy(
    bundle: Bundle, classifier: TextClassifier, examples: Sequence[Example], seed: int = 0
) -> float | None:
    """Accuracy on the in-scope rows after one round of `augment.noisy`; None without such rows."""
    twins = [noisy_twin(example, seed) for example in examples if example.product != OUT_OF_SCOPE]
    if not twins:
        return None
    accuracy: float = metrics(bundle.manifest, score(bundle, classifier, twins), [t.product for t in twins])["accuracy"]
    return accuracy


def noisy_twin(example: Example, seed: int) -> Example:
    """The example typed in a hurry; the noise depends on its text and the seed, not on the rows around it."""
    return replace(example, text=noisy(example.text, random.Random(f"{seed} {example.text!a}")))


def memberships(preprocessor: Preprocessor, texts: Sequence[str]) -> Iterator[list[str]]:
    """The slices of each message.

    A typo is guessed: a word of 4 to 24 letters that is not one piece of the tokenizer's vocabulary, but becomes
    one by one lost, extra, wrong or swapped letter. Rare words and names close to a known word count, too, and
    a slip that makes another known word does not.
    """
    tokenizer = preprocessor.tokenizer
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    known = frozenset(filter(_WORD.fullmatch, _first_pieces(tokenizer)))
    for text, ids in zip(texts, preprocessor.tokens(texts), strict=True):
        names = [_length(len(ids) - special)]
        if any(_is_slip(word, known) for word in set(_WORD.findall(preprocessor.normalise(text)))):
            names.append("typos")
        if preprocessor.unknown_id in ids.tolist():
            names.append("out_of_vocabulary")
        yield names


def _first_pieces(tokenizer: Tokenizer) -> set[str]:
    """The pieces that a word can begin with, without their marks."""
    pieces = tokenizer.get_vocab()
    return {piece[1:] for piece in pieces if piece.startswith(WORD_START)} or {*pieces}


def _length(tokens: int) -> str:
    return "short" if tokens <= SHORT else "medium" if tokens <= MEDIUM else "long"


def _is_slip(word: str, known: frozenset[str]) -> bool:
    return len(word) <= _MAX_LETTERS and word not in known and not known.isdisjoint(_one_slip_away(word))


def _one_slip_away(word: str) -> Iterator[str]:
    """Every string that a lost, extra, wrong or swapped letter makes of a word."""
    for i in range(len(word) + 1):
        before, after = word[:i], word[i:]
        yield from (before + letter + after for letter in ascii_lowercase)
        if after:
            yield before + after[1:]
            yield from (before + letter + after[1:] for letter in ascii_lowercase)
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]
