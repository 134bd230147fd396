"""Vocabulary pruning: drop the word pieces that bank chat does not need, keep every text encodable.

A third to a half of a small encoder is its embedding table. What stays: special tokens, every single-character
piece (so any word still splits into pieces), every piece that the training texts use, and the most frequent of
the rest (WordPiece vocabularies list frequent pieces first) up to a budget.
"""

import json
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

PRUNED = "WordPiece"
"""The kind of tokenizer whose vocabulary can be pruned."""


def prune_vocabulary(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> tuple[Tokenizer, npt.NDArray[np.int64]]:
    """Prune a WordPiece tokenizer.

    Args:
        tokenizer: the encoder's own tokenizer, without truncation, which would hide what the ends of texts use.
        texts: normalised training texts.
        size: the number of pieces to aim for; exceeded when the texts alone need more.

    Returns:
        The pruned tokenizer, and the old id of each new id: `new_table = old_table[old_ids]`; added tokens that are
        no pieces come last. A tokenizer of another kind, or one that is small enough, comes back as it is.
    """
    state = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"].get("vocab") if state["model"]["type"] == PRUNED else {}
    if not vocabulary or len(vocabulary) <= size:
        return tokenizer, np.arange(tokenizer.get_vocab_size())
    piece = {old: text for text, old in vocabulary.items()}
    added = {token["id"] for token in state["added_tokens"]}
    kept = sorted(_kept(vocabulary, added, tokenizer, texts, size), key=lambda old: (old not in piece, old))
    new_id = {old: new for new, old in enumerate(kept)}
    state["model"]["vocab"] = {piece[old]: new for old, new in new_id.items() if old in piece}
    for token in state["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for special in (state["post_processor"] or {}).get("special_tokens", {}).values():
        special["ids"] = [new_id[old] for old in special["ids"]]
    for side in ("sep", "cls"):
        if isinstance((state["post_processor"] or {}).get(side), list):
            text, old = state["post_processor"][side]
            state["post_processor"][side] = [text, new_id[old]]
    return Tokenizer.from_str(json.dumps(state)), np.asarray(kept, dtype=np.int64)


def _kept(
    vocabulary: dict[str, int], special: set[int], tokenizer: Tokenizer, texts: Iterable[str], size: int
) -> set[int]:
    kept = set(special)
    kept.update(old for text, old in vocabulary.items() if len(text.removeprefix("##")) == 1)
    for encoding in tokenizer.encode_batch(list(texts)):
        kept.update(encoding.ids)
    for text, old in sorted(vocabulary.items(), key=lambda item: item[1]):
        if len(kept) >= size:
            break
        if text.removeprefix("##").isascii() and not text.startswith("[unused"):
            kept.add(old)
    return kept
