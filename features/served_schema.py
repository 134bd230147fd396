"""The served log: one row a request, Parquet under `day=YYYY-MM-DD/served-*.parquet`; and what it carries of each.

The service writes it, `skew`, `drift` and `training-set --feedback` read it (`features.served_log`). Both sides
compute hashes and count unknown tokens with the functions of this module.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from features.preprocess import ContextInput, Ids

SERVED = pa.schema(
    {
        "request_id": pa.string(),
        "answered_at": pa.timestamp("us", "UTC"),
        "user_id": pa.string(),
        "features_at": pa.timestamp("ms", "UTC"),  # as of when the features were read; null when degraded
        "usage_run": pa.string(),  # null when no run was published, or degraded
        "recent_screens": pa.list_(pa.string()),  # as read from the store, oldest first
        "product_usage_60d": pa.list_(pa.struct({"product": pa.string(), "uses": pa.int64()})),  # as read, any order
        "degraded": pa.list_(pa.string()),
        "tokens": pa.int32(),  # special ones included
        "unknown_tokens": pa.int32(),
        "text_hash": pa.string(),
        "context_hash": pa.string(),
        "preprocessing": pa.string(),  # fingerprint
        "model_version": pa.string(),
        "text_logits": pa.list_(pa.float32()),
        "product": pa.string(),
        "confidence": pa.float32(),
        "action": pa.string(),  # route or general_queue
        "desk": pa.string(),
        "cached": pa.bool_(),
        "text": pa.string(),  # null unless the service is configured to keep it
    }
)
"""Rows lie in the folder of the UTC day of `answered_at`."""


def text_hash(ids: Ids) -> str:
    """16 hexadecimal digits for a message's token ids, special and truncated ones as the model sees them."""
    return blake2b(np.ascontiguousarray(ids, dtype="<i4").tobytes(), digest_size=8).hexdigest()


def context_hash(context: ContextInput) -> str:
    """16 hexadecimal digits for what the context part of the model sees."""
    content = [list(context.recent_screens), sorted(context.product_usage_60d.items())]
    return blake2b(json.dumps(content, separators=(",", ":")).encode(), digest_size=8).hexdigest()


def unknown_tokens(ids: Ids, unknown_id: int | None) -> int:
    """How many of a message's tokens the vocabulary lacks; 0 where no token stands for those."""
    return 0 if unknown_id is None else int(np.count_nonzero(ids == unknown_id))


def usage_of(row: Mapping[str, Any]) -> dict[str, int]:
    """The uses by product in a row of the log."""
    return {pair["product"]: pair["uses"] for pair in row["product_usage_60d"]}
