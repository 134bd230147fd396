import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.protocol import FeatureBatch, LogitBatch, TextBatch, TokenBatch
from features.preprocess import Ids
from features.schema import UserFeatures
from tests.unit.tokens import answer, tokens

ids = st.integers(-(2**31), 2**31 - 1)
row = st.lists(ids, max_size=20).map(lambda values: np.array(values, dtype=np.int32))


@given(rows=st.lists(row, max_size=20), version=st.text())
def test_a_token_batch_gives_back_its_rows_also_after_a_journey(rows: list[Ids], version: str) -> None:
    batch = pickle.loads(pickle.dumps(TokenBatch.of(version, rows)))
    assert batch.version == version
    assert len(batch.lengths) == len(rows)
    back = batch.rows()
    assert [r.tolist() for r in back] == [r.tolist() for r in rows]
    assert all(r.dtype == np.int32 for r in back)


def test_rows_are_views() -> None:
    batch = TokenBatch.of("v", [np.array([1, 2], dtype=np.int32), np.array([3], dtype=np.int32)])
    assert all(np.shares_memory(row, batch.ids) for row in batch.rows())


names = st.text(max_size=5)
users = st.builds(UserFeatures, st.lists(names, max_size=3).map(tuple), st.dictionaries(names, st.integers(0, 9)))


@given(batch=st.builds(FeatureBatch, st.lists(users, max_size=4), st.lists(names).map(tuple), st.integers(), names))
def test_a_feature_batch_is_the_same_after_a_journey(batch: FeatureBatch) -> None:
    assert pickle.loads(pickle.dumps(batch)) == batch


@given(batch=st.builds(TextBatch, names, st.lists(names)))
def test_a_text_batch_is_the_same_after_a_journey(batch: TextBatch) -> None:
    assert pickle.loads(pickle.dumps(batch)) == batch


@pytest.mark.parametrize(
    ("kind", "known"), [(UserFeatures, 2), (FeatureBatch, 4), (TextBatch, 2), (TokenBatch, 4), (LogitBatch, 6)]
)
def test_no_field_is_left_behind(kind: type, known: int) -> None:
    """A new field must be added to the batch's `__reduce__`, and then here."""
    assert len(fields(kind)) == known


@given(data=st.data(), n=st.integers(0, 5), outputs=st.integers(0, 4))
def test_a_logit_batch_is_the_same_after_a_journey(data: st.DataObject, n: int, outputs: int) -> None:
    numbers = st.floats(width=32)
    rows = data.draw(st.lists(st.lists(numbers, min_size=outputs, max_size=outputs), min_size=n, max_size=n))
    batch = LogitBatch(
        "v",
        np.array(rows, dtype=np.float32).reshape(n, outputs),
        np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=np.bool_),
        data.draw(st.dictionaries(st.text(), st.floats(allow_nan=False))),
        data.draw(st.none() | st.text()),
        data.draw(st.frozensets(st.integers(0, n))),
    )
    back = pickle.loads(pickle.dumps(batch))
    assert back.logits.dtype == np.float32
    assert back.cached.dtype == np.bool_
    assert np.array_equal(back.logits, batch.logits, equal_nan=True)
    assert back.logits.shape == (n, outputs)
    assert back.cached.tolist() == batch.cached.tolist()
    assert (back.version, back.milliseconds, back.failure) == (batch.version, batch.milliseconds, batch.failure)
    assert back.late == batch.late


def test_a_logit_batch_without_late_rows_is_what_older_replicas_send_and_read() -> None:
    """During a rolling update both answer each other."""
    _, arguments = answer(tokens("v", [1], [2])).__reduce__()
    assert len(arguments) == 6
