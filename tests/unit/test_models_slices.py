"""Slices of labelled chats against their definitions, and the report that they are part of."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from features.preprocess import PreprocessConfig, Preprocessor
from models.augment import typo
from models.bundle import Bundle
from models.classifier import TextClassifier
from models.context import Floats
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, load
from models.evaluate import Scores, evaluate
from models.judge import judge
from models.slices import MEDIUM, SHORT, SLICES, memberships, noisy_accuracy, noisy_twin, slices

LENGTHS = {"short", "medium", "long"}
TEXTS = ("pay", "my card was declined", "recieve it", "\u2603", "pay " * 10, "pay " * 40, "declinned \u2603 " * 9)

rows_of = st.lists(st.tuples(st.sampled_from(TEXTS), st.integers(-1, 8), st.integers(0, 8)), max_size=25)
"""Text, true product (-1 for none) and answered product, as positions."""


def names(bundle: Bundle, text: str) -> list[str]:
    return next(memberships(bundle.preprocessor, [text]))


def labelled(bundle: Bundle, rows: Sequence[tuple[str, int, int]]) -> tuple[list[Example], Scores]:
    """The rows as examples, and scores that are certain of each answer."""
    labels = bundle.manifest.labels
    text: Floats = np.zeros((len(rows), bundle.manifest.outputs), dtype=np.float32)
    text[np.arange(len(rows)), [answered for _, _, answered in rows]] = 60
    examples = [Example(message, OUT_OF_SCOPE if true < 0 else labels[true]) for message, true, _ in rows]
    return examples, Scores(text, np.zeros_like(text))


@pytest.fixture(scope="module")
def words(bundle: Bundle) -> list[str]:
    """Words of 5 to 20 letters that are one piece of the vocabulary."""
    pieces = sorted(bundle.preprocessor.tokenizer.get_vocab())
    return [p for p in pieces if p.isascii() and p.isalpha() and 5 <= len(p) <= 20]


@pytest.fixture(scope="module")
def chats(bundle: Bundle) -> list[Example]:
    """Rows of every product of the default bundle and of none, six of each, without contexts."""
    found = [row for row in load(CORPUS / "holdout") if not row.has_context]
    products = (*bundle.manifest.labels, OUT_OF_SCOPE)
    return [row for product in products for row in [r for r in found if r.product == product][:6]]


@given(st.text(max_size=80))
def test_a_message_is_in_one_slice_of_length_and_normalising_it_changes_nothing(bundle: Bundle, text: str) -> None:
    found = names(bundle, text)
    assert len(set(found) & LENGTHS) == 1
    assert set(found) <= set(SLICES)
    assert len(found) == len(set(found))
    assert names(bundle, bundle.preprocessor.normalise(text)) == found


@pytest.mark.parametrize("tokens", [0, 1, SHORT, SHORT + 1, MEDIUM, MEDIUM + 1, 40, 500])
def test_length_is_counted_in_tokens_without_the_special_ones(bundle: Bundle, tokens: int) -> None:
    expected = "short" if tokens <= SHORT else "medium" if tokens <= MEDIUM else "long"
    assert names(bundle, "pay " * tokens) == [expected]


@given(st.data(), st.integers(0, 10_000))
def test_one_slip_in_a_known_word_is_a_typo_unless_it_makes_another(
    bundle: Bundle, words: list[str], data: st.DataObject, seed: int
) -> None:
    word = data.draw(st.sampled_from(words))
    slipped = bundle.preprocessor.normalise(typo(word, random.Random(seed)))
    known = bundle.preprocessor.tokenizer.token_to_id(slipped) is not None
    assert ("typos" in names(bundle, f"my {slipped} now")) == (not known)


@given(st.data())
def test_known_words_hold_no_typo(bundle: Bundle, words: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(words), max_size=6))
    normal = [word for word in chosen if bundle.preprocessor.normalise(word) == word]
    assert "typos" not in names(bundle, " ".join(normal))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I did not recieve it", True),
        ("I did not receive it", False),
        ("RECIEVE", True),
        ("where is teh money", False),  # too short to tell
        ("qwrtzpsdfg", False),  # far from any word
        ("x1" * 5_000, False),
        ("ab" * 50_000, False),
    ],
)
def test_typos_by_hand(bundle: Bundle, text: str, expected: bool) -> None:
    assert ("typos" in names(bundle, text)) == expected


def test_out_of_vocabulary_is_what_the_tokenizer_does_not_know(bundle: Bundle) -> None:
    assert "out_of_vocabulary" in names(bundle, "pay \u2603")
    assert "out_of_vocabulary" not in names(bundle, "pay me")
    assert "out_of_vocabulary" not in names(bundle, "recieve declinned")  # known pieces


LEARNT = ["my credit card was declined again today", "the mortgage payment failed twice"] * 20


def unigram() -> Tokenizer:
    made = Tokenizer(Unigram())
    made.pre_tokenizer = Metaspace()
    special = ["<s>", "</s>", "<unk>"]
    made.train_from_iterator(
        LEARNT, UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    return made


def byte_level() -> Tokenizer:
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=True)
    alphabet = ByteLevel.alphabet()
    made.train_from_iterator(LEARNT, BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    return made


def test_unigram_has_an_unknown_token_of_its_own() -> None:
    pre = Preprocessor(PreprocessConfig(), unigram())
    found = list(memberships(pre, ["my card \u2603", "my card"]))
    assert ["out_of_vocabulary" in names for names in found] == [True, False]


def test_known_words_of_a_byte_level_tokenizer_carry_a_mark() -> None:
    pre = Preprocessor(PreprocessConfig(), byte_level())
    found = list(memberships(pre, ["my credit card was declined", "my credit crad was declined", "my card \u2603"]))
    assert ["typos" in names for names in found] == [False, True, False]
    assert not any("out_of_vocabulary" in names for names in found)


@given(rows_of)
def test_each_slice_has_the_figures_of_its_in_scope_rows(bundle: Bundle, rows: list[tuple[str, int, int]]) -> None:
    examples, scores = labelled(bundle, rows)
    report = slices(bundle, scores, examples)
    right: dict[str, list[bool]] = {}
    found = dict(zip(TEXTS, memberships(bundle.preprocessor, TEXTS), strict=True))
    for text, true, answered in rows:
        if true >= 0:
            for name in found[text]:
                right.setdefault(name, []).append(true == answered)
    assert list(report) == [name for name in SLICES if name in right]
    for name, correct in right.items():
        share = sum(correct) / len(correct)
        assert report[name] == {
            "n": len(correct),
            "accuracy": pytest.approx(share, abs=1e-4),
            "ece": pytest.approx(1 - share, abs=1e-4),
            "coverage": 1.0,
        }


@given(st.randoms(use_true_random=False), rows_of)
def test_the_order_of_the_rows_does_not_matter(
    bundle: Bundle, rng: random.Random, rows: list[tuple[str, int, int]]
) -> None:
    shuffled = rng.sample(rows, len(rows))
    one, other = labelled(bundle, rows), labelled(bundle, shuffled)
    assert slices(bundle, one[1], one[0]) == slices(bundle, other[1], other[0])


def test_noise_depends_on_text_and_seed_alone(bundle: Bundle, classifier: TextClassifier, chats: list[Example]) -> None:
    by_seed = [noisy_accuracy(bundle, classifier, chats, seed) for seed in range(4)]
    assert noisy_accuracy(bundle, classifier, chats[::-1]) == by_seed[0]
    assert len(set(by_seed)) > 1


@given(st.integers(0, 1_000), st.text(max_size=60))
def test_a_noisy_twin_differs_in_its_text_alone(seed: int, text: str) -> None:
    example = Example(text, "loans", ("home",), {"loans": 3})
    twin = noisy_twin(example, seed)
    assert replace(twin, text=text) == example
    assert noisy_twin(example, seed) == twin


def test_every_message_gets_noise_of_its_own() -> None:
    texts = [f"{i} is my loan number" for i in range(100)]
    kept = [noisy_twin(Example(text, "loans"), 0).text == text for text in texts]
    assert 5 < sum(kept) < 95


def test_without_rows_in_scope_there_is_no_accuracy(
    bundle: Bundle, classifier: TextClassifier, chats: list[Example]
) -> None:
    strange = [row for row in chats if row.product == OUT_OF_SCOPE]
    assert strange
    assert noisy_accuracy(bundle, classifier, strange) is None
    report, text = judge(bundle, strange, classifier)
    assert report["slices"] == {}
    assert f"0 in scope, {len(strange)} out of scope" in text


def test_the_report_is_that_of_evaluate_and_the_slices(
    bundle: Bundle, classifier: TextClassifier, chats: list[Example]
) -> None:
    wrong = [replace(row, product=bundle.manifest.labels[0]) for row in chats[-12:]]  # so that some F1 are lower
    chats = chats + wrong
    report, text = judge(bundle, chats, classifier)
    parts = report["slices"]
    assert {key: value for key, value in report.items() if key != "slices"} == evaluate(bundle, chats, classifier)
    assert sum(parts[name]["n"] for name in LENGTHS & set(parts)) == report["n"] == parts["noisy"]["n"]
    assert parts["noisy"]["accuracy"] == noisy_accuracy(bundle, classifier, chats)
    assert json.loads(json.dumps(report)) == report
    lines = [line.split() for line in text.splitlines()]
    for name, figures in parts.items():
        assert [name, str(figures["n"]), f"{figures['accuracy']:.4f}"] in [line[:3] for line in lines]
    first = lines.index(["product,", "worst", "first", "f1"]) + 1
    listed = [(line[0], float(line[1])) for line in lines[first : first + len(report["f1"])]]
    assert dict(listed) == report["f1"]
    assert len(set(report["f1"].values())) > 1
    assert [f1 for _, f1 in listed] == sorted(report["f1"].values())


def test_a_label_that_the_bundle_lacks_is_named(bundle: Bundle, classifier: TextClassifier) -> None:
    with pytest.raises(DataError, match="mortgages"):
        judge(bundle, [Example("my house", "mortgages")], classifier)
