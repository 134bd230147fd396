"""Token batches, and a text classifier whose logits can be told from its tokens."""

from collections.abc import Sequence

import numpy as np

from deployments.protocol import LogitBatch, TokenBatch
from features.preprocess import Ids
from models.context import Floats


def tokens(version: str, *rows: Sequence[int]) -> TokenBatch:
    return TokenBatch.of(version, [np.array(row, dtype=np.int32) for row in rows])


def logits(version: str, *rows: Sequence[int]) -> Floats:
    """What `answer` gives for these tokens: three figures that differ by version, content and order."""
    base = sum(version.encode())
    figures = [[base, sum(row), sum(place * token for place, token in enumerate(row, 1))] for row in rows]
    return np.array(figures, dtype=np.float32) if rows else np.zeros((0, 3), dtype=np.float32)


def lists(batch: TokenBatch) -> list[list[int]]:
    return [_list(row) for row in batch.rows()]


def answer(batch: TokenBatch) -> LogitBatch:
    rows = lists(batch)
    return LogitBatch(batch.version, logits(batch.version, *rows), np.zeros(len(rows), np.bool_), {"inference": 1.0})


class Classifier:
    """Answers at once, and notes the batches that it was given; fails while `failure` is set."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.failure: BaseException | None = None

    async def __call__(self, batch: TokenBatch) -> LogitBatch:
        self.batches.append(lists(batch))
        if self.failure is not None:
            raise self.failure
        return answer(batch)


def _list(row: Ids) -> list[int]:
    return [int(token) for token in row]
