"""Distillation: where a student starts, and that it comes to think as its teachers do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blocks import layer_stack
from models.context import softmax
from models.distil import distil, from_pretrained, from_scratch, from_teacher
from models.networks import Floats, TextNet, load_encoder, pad
from models.optimise import Schedule
from models.teacher import accuracy_on, predict
from models.transfer import TransferSet, label, transfer_texts
from tests.unit.tiny import (
    bert,
    chats,
    logits,
    one_hot,
    preprocessor,
    random_rows,
    save_encoder,
    weights,
)

PRE = preprocessor()
SCHEDULE = Schedule(8, 4e-3, batch_size=16, head_rate=3.0)
ROWS = random_rows(20)


@pytest.fixture(scope="module")
def teacher() -> TextNet:
    return bert(1)


@pytest.fixture(scope="module")
def transfer(teacher: TextNet) -> TransferSet:
    """Labels as the teacher sees them, so that both parts of the loss point the same way."""
    texts = [row.text for row in chats(60)]
    targets = one_hot(predict(teacher, PRE.tokens(texts))[0].argmax(axis=1).tolist())
    pool, owner = transfer_texts(texts, [], noise=1, mixtures=1, seed=0)
    return label([teacher], PRE, pool, owner, targets)


def divergence(student: TextNet, transfer: TransferSet) -> float:
    """Mean KL divergence of the student's distributions from the teachers'."""
    p, q = softmax(transfer.logits), softmax(predict(student, PRE.tokens(transfer.texts))[0])
    return float((p * np.log(np.clip(p, 1e-9, None) / np.clip(q, 1e-9, None))).sum(axis=1).mean())


def likeness(embeddings: Floats, others: Floats) -> float:
    """Mean cosine."""
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (embeddings, others))
    return float((a * b).sum(axis=1).mean())


@pytest.mark.parametrize("width", [32, 16], ids=["equal width", "other width"])
def test_student_comes_to_think_as_its_teacher(width: int, transfer: TransferSet) -> None:
    torch.manual_seed(0)
    student = TextNet(bert(2, hidden_size=width, num_hidden_layers=2).encoder, 3)
    before = divergence(student, transfer)
    assert distil(student, PRE, transfer, SCHEDULE) is student
    assert divergence(student, transfer) < 0.5 * before


def test_student_of_equal_width_comes_to_see_texts_alike(teacher: TextNet, transfer: TransferSet) -> None:
    rows = PRE.tokens([row.text for row in chats(30, seed=9)])
    seen, student = predict(teacher, rows)[1], from_scratch(teacher, 2, seed=3)
    before = likeness(predict(student, rows)[1], seen)
    distil(student, PRE, transfer, SCHEDULE)
    assert before < 0.3 < 0.6 < likeness(predict(student, rows)[1], seen)


def test_distillation_keeps_no_epoch_that_validates_surely_worse(transfer: TransferSet) -> None:
    """Validation rows that want the student's first answers: the more it learns, the fewer of them it gives."""
    rows = PRE.tokens(transfer.texts)
    held = (rows, one_hot(predict(bert(4), rows)[0].argmax(axis=1).tolist()))
    check = accuracy_on(held)
    assert check is not None
    chosen = distil(bert(4), PRE, transfer, SCHEDULE, validation=held)
    last = distil(bert(4), PRE, transfer, SCHEDULE)
    assert check(chosen).figure > check(last).figure


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(0, 9))
def test_student_from_scratch_has_the_wanted_layers_and_weights_of_its_own(layers: int, seed: int) -> None:
    teacher = bert(1)
    first, second = (from_scratch(teacher, layers, seed) for _ in range(2))
    assert len(layer_stack(first.encoder)) == first.encoder.config.num_hidden_layers == layers
    assert first.encoder.config.hidden_size == teacher.encoder.config.hidden_size
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(from_scratch(teacher, layers, seed + 1)))
    assert logits(first, ROWS).shape == (20, 3)
    assert teacher.encoder.config.num_hidden_layers == 3
    own, theirs = (net.encoder.get_input_embeddings().weight for net in (first, teacher))
    assert not torch.isclose(own[1:], theirs[1:]).any(dim=1).all()


def test_student_from_scratch_has_no_dropout_in_its_encoder_as_no_other_has(tmp_path: Path) -> None:
    teacher = TextNet(load_encoder(save_encoder(tmp_path, hidden_dropout_prob=0.3))[0], 3)
    for net in (teacher, from_scratch(teacher, 2, seed=0)):
        first, second = (net.train().embed(*pad(ROWS)) for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_student_from_the_teacher_has_some_of_its_layers_in_order(layers: int, teacher: TextNet) -> None:
    student = from_teacher(teacher, layers, ROWS, softmax(logits(teacher, ROWS)))
    names = [[weight.detach().sum().item() for weight in layer.parameters()] for layer in layer_stack(teacher.encoder)]
    found = [
        names.index([weight.detach().sum().item() for weight in layer.parameters()])
        for layer in layer_stack(student.encoder)
    ]
    assert len(found) == layers
    assert found == sorted(set(found))
    for i, layer in zip(found, layer_stack(student.encoder), strict=True):
        for own, theirs in zip(layer.parameters(), layer_stack(teacher.encoder)[i].parameters(), strict=True):
            assert torch.equal(own, theirs)
    assert torch.equal(student.head.weight, teacher.head.weight)
    assert torch.equal(student.encoder.get_input_embeddings().weight, teacher.encoder.get_input_embeddings().weight)


def test_student_from_a_folder_comes_with_its_tokenizer(tmp_path: Path) -> None:
    student, tokenizer = from_pretrained(save_encoder(tmp_path, num_hidden_layers=2), 5)
    assert student.head.out_features == 5
    assert len(layer_stack(student.encoder)) == 2
    assert tokenizer.encode("card declined").tokens == ["[CLS]", "card", "declined", "[SEP]"]
