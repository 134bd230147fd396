"""The transfer set: which texts it holds, and what their labels are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.teacher import average, predict
from models.transfer import label, transfer_texts
from tests.unit.tiny import bert, chats, one_hot, preprocessor

TEXTS = [row.text for row in chats(6)]
some_texts = st.lists(st.text("ab ", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6)
copies = st.integers(0, 3)


@given(some_texts, st.lists(st.text(max_size=9), max_size=4), copies, copies, st.integers(0, 99))
def test_pool_holds_the_wanted_number_of_each_kind(
    texts: list[str], unlabelled: list[str], noise: int, mixtures: int, seed: int
) -> None:
    n = len(texts)
    pool, owner = transfer_texts(texts, unlabelled, noise=noise, mixtures=mixtures, seed=seed)
    assert owner == [*range(n)] * (1 + noise) + [-1] * (mixtures * n + len(unlabelled))
    assert len(pool) == len(owner)
    assert pool[:n] == texts
    assert pool[len(pool) - len(unlabelled) :] == unlabelled


@given(st.integers(0, 99))
def test_pool_of_a_seed_is_always_the_same(seed: int) -> None:
    first, second = (transfer_texts(TEXTS, ["mine"], noise=2, mixtures=2, seed=seed) for _ in range(2))
    assert first == second


def test_pool_of_another_seed_is_another() -> None:
    first, second = (transfer_texts(TEXTS, [], noise=2, mixtures=2, seed=seed)[0] for seed in (0, 1))
    assert first[: len(TEXTS)] == second[: len(TEXTS)]
    assert first[len(TEXTS) :] != second[len(TEXTS) :]


def test_noisy_copies_differ_from_the_text_they_are_of_but_share_its_words() -> None:
    texts = [row.text for row in chats(60)]
    pool, owner = transfer_texts(texts, [], noise=1, mixtures=0, seed=0)
    copied = list(zip(pool[60:], owner[60:], strict=True))
    assert any(text != texts[row] for text, row in copied)
    assert all(set(text.split()) & set(texts[row].split()) for text, row in copied)


def test_given_labels_stay_and_the_teachers_label_the_rest() -> None:
    pre, teachers = preprocessor(), [bert(0), bert(1)]
    targets = one_hot([0, 1, 2, 0, 1, 2])
    targets[0] = [0.5, 0.5, 0.0]
    pool, owner = transfer_texts(TEXTS, ["an unlabelled text", ""], noise=1, mixtures=2, seed=0)
    made = label(teachers, pre, pool, owner, targets)
    known = np.array(owner) >= 0
    assert made.texts == pool
    assert np.array_equal(made.labels[known], targets[[row for row in owner if row >= 0]])
    assert known.sum() == 12
    assert np.allclose(made.labels.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(made.labels[~known], np.exp(made.logits[~known]), atol=1e-5)
    answers = [predict(net, pre.tokens(pool)) for net in teachers]
    assert np.allclose(made.logits, average([logits for logits, _ in answers]), atol=1e-5)
    assert np.array_equal(made.embeddings, answers[0][1])
