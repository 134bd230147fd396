"""Near-duplicate messages, so that none straddles a split.

Two messages are near-duplicates when the Jaccard similarity of their word sets is at least a threshold, or when they
are the same to the networks: equal once normalised, as those are that differ in an account number alone.
Candidates come from prefix filtering (Chaudhuri, Ganti & Kaushik, 2006; Bayardo, Ma & Srikant, 2007): in a
global order from rare to frequent words, two sets that are similar enough share a word among their first
`n - ceil(threshold * n) + 1` ones. Exact, and far from quadratic on natural text.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from features.preprocess import wordless

_WORD = re.compile(r"\w+")
THRESHOLD = 0.6


def word_set(text: str) -> frozenset[str]:
    """The words of a message; of one without any, the message itself."""
    return frozenset(_WORD.findall(text.lower())) or frozenset([text.strip().lower()])


def similar_pairs(texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[tuple[int, int]]:
    """Pairs of indices `i < j` of messages whose similarity is at least `threshold`, each pair once."""
    sets = [word_set(text) for text in texts]
    frequency = Counter(word for words in sets for word in words)
    posting: defaultdict[str, list[int]] = defaultdict(list)
    for j, words in enumerate(sets):
        ordered = sorted(words, key=lambda word: (frequency[word], word))
        prefix = ordered[: len(ordered) - math.ceil(threshold * len(ordered)) + 1]
        candidates = {i for word in prefix for i in posting[word]}
        for i in sorted(candidates):
            if len(words & sets[i]) >= threshold * len(words | sets[i]):
                yield i, j
        for word in prefix:
            posting[word].append(j)


def clusters(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """The cluster of each message: connected components of near-duplicates, named by their first index."""
    first: dict[frozenset[str], int] = {}
    alike = [first.setdefault(word_set(text), i) for i, text in enumerate(texts)]
    distinct = list(first.values())
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in similar_pairs([texts[i] for i in distinct], threshold):
        low, high = sorted((root(distinct[i]), root(distinct[j])))
        parent[high] = low
    normalise = wordless().normalise
    same: dict[str, int] = {}
    for text, i in dict(zip(texts, alike, strict=True)).items():
        low, high = sorted((root(i), root(same.setdefault(normalise(text), i))))
        parent[high] = low
    return [root(i) for i in alike]
