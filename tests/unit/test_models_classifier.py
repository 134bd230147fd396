"""The text classifier: whatever the batch, the same logits for the same text."""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from models.bundle import Bundle
from models.classifier import TextClassifier, is_int8, length_groups
from models.data import CORPUS, load

TEXTS = sorted({example.text for example in load(CORPUS / "holdout")})


@given(st.lists(st.integers(2, 96), max_size=80), st.integers(1, 33))
def test_groups_are_a_permutation_within_the_limits(lengths: list[int], limit: int) -> None:
    groups = list(length_groups(lengths, limit))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert 1 <= len(group) <= limit
        own = [lengths[i] for i in group]
        assert max(own) <= 1.5 * min(own) + 2


def test_equal_lengths_fill_groups() -> None:
    assert [len(group) for group in length_groups([7] * 10, 4)] == [4, 4, 2]
    assert list(length_groups([], 4)) == []


def test_logits_do_not_depend_on_the_batch(bundle: Bundle, classifier: TextClassifier) -> None:
    texts = [*random.Random(0).sample(TEXTS, 24), "a", "very long message " * 60]
    rows = bundle.preprocessor.tokens(texts)
    together = classifier(rows)
    assert together.shape == (26, bundle.manifest.outputs)
    assert together.dtype == np.float32
    assert np.array_equal(classifier(rows[::-1])[::-1], together)
    for row, logits in zip(rows, together, strict=True):
        assert np.array_equal(classifier([row])[0], logits)


def test_padded_batches_answer_in_order(bundle: Bundle, classifier: TextClassifier) -> None:
    padded = TextClassifier(bundle.path / "text.onnx", max_batch=8)
    rows = bundle.preprocessor.tokens(random.Random(1).sample(TEXTS, 40))
    alone, together = classifier(rows), padded(rows)
    distance = np.abs(together[:, None] - alone[None]).mean(axis=2)
    assert (distance.argmin(axis=1) == np.arange(40)).all()
    assert distance.diagonal().mean() < 0.2


def test_no_rows_no_logits(bundle: Bundle, classifier: TextClassifier) -> None:
    assert classifier([]).shape == (0, bundle.manifest.outputs)


def test_texts_are_told_apart(bundle: Bundle, classifier: TextClassifier) -> None:
    texts = ["raise my credit card limit", "sell my shares and funds", "i need a personal loan"]
    best = classifier(bundle.preprocessor.tokens(texts))[:, : len(bundle.manifest.labels)].argmax(axis=1)
    assert [bundle.manifest.labels[i] for i in best] == ["credit_card", "investments", "loans"]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA here")
def test_cuda_is_never_replaced_by_the_cpu(bundle: Bundle) -> None:
    with pytest.raises(RuntimeError, match=r"CUDAExecutionProvider.*install the extra \[gpu\]"):
        TextClassifier(bundle.path / "text.onnx", device="cuda")


def test_int8_is_told_from_other_networks(bundle: Bundle, tmp_path: Path) -> None:
    assert is_int8(bundle.path / "text.onnx")
    plain = helper.make_model(helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "g", [], []))
    onnx.save(plain, str(tmp_path / "fp32.onnx"))
    assert not is_int8(tmp_path / "fp32.onnx")
