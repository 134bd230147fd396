"""Uses summed by user and product: each pair gets a number from the dictionary indices, and numpy counts by number."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_CELLS_PER_ROW = 8
"""A dense table of users by products is used if it has at most so many cells for each row."""


@dataclass(frozen=True, slots=True)
class PairSums:
    """The pairs of a user and a product whose sum is not zero, by user and then by product.

    Attributes:
        users: the names, each once.
        products: likewise.
        user: int64 [pairs], indices of `users`.
        product: int64 [pairs], indices of `products`.
        uses: int64 [pairs].
    """

    users: pa.Array
    products: pa.Array
    user: np.ndarray
    product: np.ndarray
    uses: np.ndarray


def pair_sums(users: pa.DictionaryArray, products: pa.DictionaryArray, uses: np.ndarray | None = None) -> PairSums:
    """Sum `uses` by user and product.

    Args:
        users: of each row, without nulls.
        products: likewise.
        uses: int64 [rows]; default: one each.
    """
    width = len(products.dictionary)
    cells, pairs = users.indices.to_numpy() * np.int64(width) + products.indices.to_numpy(), None
    if len(users.dictionary) * width > _CELLS_PER_ROW * len(cells):
        pairs, cells = np.unique(cells, return_inverse=True)
    sums = np.bincount(cells, uses)  # with weights in floating point: exact up to 2 ** 53
    used = np.flatnonzero(sums != 0)  # on booleans four times as fast as on numbers
    user, product = np.divmod(used if pairs is None else pairs[used], max(width, 1))
    return PairSums(users.dictionary, products.dictionary, user, product, sums[used].astype(np.int64))
