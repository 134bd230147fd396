"""The one preprocessing function: total, idempotent, free of long numbers, and fingerprinted."""

import re
from string import ascii_lowercase, digits, punctuation

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import BPE, Model, Unigram, WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from features.preprocess import PreprocessConfig, Preprocessor

LONG_RUN = re.compile(r"\d{6}")
LONG_GROUP = re.compile(r"\d(?:\W{0,3}\d){7}")
INVISIBLE = "\u200b\u200d\u2060\ufeff\u00ad"

anything = st.text(st.characters(), max_size=60)
"""Any characters at all, lone surrogates included."""
number_like = st.lists(
    st.sampled_from(
        ["1", "42", "1234", "123456", "\u0664", "²", ".", "..", "....", "#", "###", "-", "…", "_", " ", "a"]
    ),
    max_size=14,
).map("".join)
messages = anything | number_like


def tokenizer(*words: str) -> Tokenizer:
    """A WordPiece tokenizer that knows the given words and spells out all other ASCII ones."""
    letters = ascii_lowercase + digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *punctuation, *(f"##{c}" for c in letters), *words]
    built = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    built.pre_tokenizer = BertPreTokenizer()
    built.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    built.enable_padding(length=128)
    built.enable_truncation(max_length=128)
    return built


PRE = Preprocessor(PreprocessConfig(max_tokens=16), tokenizer("card", "##ed"))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("It got DECLINED again!!!!!!", "it got declined again!!!"),
        ("  two\t\n spaces\u2028here ", "two spaces here"),
        ("card 4111 1111-1111 1111 exp 12/29", "card # exp 12/29"),
        ("acct 123456 and 12345", "acct # and 12345"),
        ("paid R$ 1.234,56 at 10:45", "paid r$ 1.234,56 at 10:45"),
        ("soooo sloooow", "soo sloow"),
        ("não cartão ﬁne", "nao cartao fine"),
        ("\uff14\uff11\uff11\uff11\uff11\uff11 \u0664\u0661\u0661\u0661\u0661\u0661", "#"),
        ("snake_case", "snake case"),
        ("\ud800\u200b\x00", ""),
    ],
)
def test_normalise(text: str, canonical: str) -> None:
    assert PRE.normalise(text) == canonical


@given(messages)
@example("00000:00::::0")
def test_normalise_is_idempotent(text: str) -> None:
    once = PRE.normalise(text)
    assert PRE.normalise(once) == once


@given(messages)
@example("1234....5678")
def test_no_long_number_survives(text: str) -> None:
    canonical = PRE.normalise(text)
    assert not LONG_RUN.search(canonical)
    assert not LONG_GROUP.search(canonical)


@given(st.lists(messages, max_size=5))
def test_tokens_of_any_text_have_two_to_max_tokens_ids(texts: list[str]) -> None:
    rows = PRE.tokens(texts)
    assert len(rows) == len(texts)
    for row in rows:
        assert row.dtype == np.int32
        assert 2 <= len(row) <= 16
        assert (row[0], row[-1]) == (2, 3)


@given(messages, messages)
def test_tokens_do_not_depend_on_the_batch(one: str, other: str) -> None:
    assert PRE.tokens([other, one])[1].tolist() == PRE.tokens([one])[0].tolist()


def test_long_text_keeps_head_and_tail() -> None:
    text = " ".join(ascii_lowercase)
    whole = PRE.tokenizer.encode(text).ids
    kept = PRE.tokens([text])[0].tolist()
    assert len(whole) == 28
    assert kept == whole[:8] + whole[-8:]


def test_text_of_just_max_tokens_stays_whole() -> None:
    text = " ".join(ascii_lowercase[:14])
    assert PRE.tokens([text])[0].tolist() == PRE.tokenizer.encode(text).ids


@given(st.text(ascii_lowercase + digits + " .!?ãçéíõ", max_size=30), st.data())
def test_case_and_invisible_characters_change_nothing(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    broken = text[:place].upper() + data.draw(st.sampled_from(INVISIBLE)) + text[place:]
    assert PRE.normalise(broken) == PRE.normalise(text)
    assert PRE.tokens([broken])[0].tolist() == PRE.tokens([text])[0].tolist()


def test_context_keeps_the_newest_screens_and_caps_usage() -> None:
    pre = Preprocessor(PreprocessConfig(max_screens=2, max_usage=10), tokenizer())
    context = pre.context([" Home ", "CARD_LIMIT", "", "help"], {"b": 99, "a": 3, "c": 0, "d": -1})
    assert context.recent_screens == ("card_limit", "help")
    assert list(context.product_usage_60d.items()) == [("a", 3), ("b", 10)]


@pytest.mark.parametrize(
    "changed",
    [{"max_tokens": 32}, {"mask_run": 7}, {"mask_group": 9}, {"max_screens": 4}, {"max_usage": 999}],
    ids=lambda changed: next(iter(changed)),
)
def test_fingerprint_changes_with_each_setting(changed: dict[str, int]) -> None:
    base = Preprocessor(PreprocessConfig(), tokenizer()).fingerprint
    assert Preprocessor(PreprocessConfig(**changed), tokenizer()).fingerprint != base


def test_fingerprint_is_of_the_tokenizer_too() -> None:
    one, same, other = (
        Preprocessor(PreprocessConfig(), t).fingerprint for t in (tokenizer(), tokenizer(), tokenizer("zebra"))
    )
    assert re.fullmatch("[0-9a-f]{16}", one)
    assert one == same != other


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (WordPiece({"[UNK]": 1, "a": 0}, unk_token="[UNK]"), 1),
        (Unigram([("a", -1.0), ("<unk>", 0.0)], unk_id=1), 1),
        (BPE({"a": 0}, []), None),
    ],
)
def test_the_token_for_what_the_vocabulary_lacks(model: Model, expected: int | None) -> None:
    assert Preprocessor(PreprocessConfig(), Tokenizer(model)).unknown_id == expected


def test_settings_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="max_token"):
        PreprocessConfig.model_validate({"max_token": 96})


def test_of_a_text_that_decomposition_makes_huge_only_the_ends_are_tokenised() -> None:
    seen: list[int] = []
    pre = Preprocessor(PreprocessConfig(max_tokens=8), tokenizer("start", "end", "middle"))
    text = "start " + "\ufdfa " * 4000 + "end"
    rows = pre.tokens([text, "start " + "middle " * 3000 + "end"])
    assert len(pre.normalise(text)) > 70_000
    for row in rows:
        known = [pre.tokenizer.id_to_token(token) for token in row]
        seen.append(len(row))
        assert known[:2] == ["[CLS]", "start"]
        assert known[-2:] == ["end", "[SEP]"]
    assert seen == [8, 8]
