"""The schema of the served log: one row a request, in Parquet files `day=YYYY-MM-DD/served-*.parquet`.

The service writes it; `skew`, `drift` and `training-set --feedback` read it (`features.served_log`). Both sides compute
hashes and count unknown tokens with the functions of this module.
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
"""A row is in the folder of the UTC day of its `answered_at`."""


def text_hash(ids: Ids) -> str:
    """Hash of a message's token ids as the model sees them (truncated, special ones included): 16 hex digits."""
    return blake2b(np.ascontiguousarray(ids, dtype="<i4").tobytes(), digest_size=8).hexdigest()


def context_hash(context: ContextInput) -> str:
    """Hash of the input of the model's context part: 16 hex digits."""
    content = [list(context.recent_screens), sorted(context.product_usage_60d.items())]
    return blake2b(json.dumps(content, separators=(",", ":")).encode(), digest_size=8).hexdigest()


def unknown_tokens(ids: Ids, unknown_id: int | None) -> int:
    """The number of unknown tokens in a message; 0 if the tokenizer has no unknown token."""
    return 0 if unknown_id is None else int(np.count_nonzero(ids == unknown_id))


def usage_of(row: Mapping[str, Any]) -> dict[str, int]:
    """The uses by product in a row of the log."""
    return {pair["product"]: pair["uses"] for pair in row["product_usage_60d"]}
