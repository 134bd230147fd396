import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.protocol import TokenBatch
from features.preprocess import Ids

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
