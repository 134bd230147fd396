"""A served batch as rows of the served log."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from deployments.protocol import PredictResponse
from deployments.served import ServedBatch
from features.served_schema import SERVED, context_hash, text_hash, unknown_tokens


def rows(batch: ServedBatch, with_text: bool) -> pa.Table:
    """One row for each answered message, with the columns of `SERVED`."""
    answered = [(i, r) for i, r in enumerate(batch.responses) if isinstance(r, PredictResponse)]
    kept = [i for i, _ in answered]
    responses = [response for _, response in answered]
    n = len(kept)
    tokens = batch.tokens.rows()
    unknown_id = batch.bundle.preprocessor.unknown_id
    moment = None if batch.features.degraded else batch.features.at_ms
    answered_at = datetime.fromtimestamp(batch.answered_at, UTC)
    columns = {
        "request_id": [r.request_id for r in responses],
        "answered_at": [answered_at] * n,
        "user_id": [batch.queries[i].user_id for i in kept],
        "features_at": pa.array([moment] * n, pa.int64()).cast(SERVED.field("features_at").type),
        "usage_run": [batch.features.usage_run] * n,
        "recent_screens": [list(r.features.recent_screens) for r in responses],
        "product_usage_60d": _usage(responses),
        "degraded": [list(r.degraded) for r in responses],
        "tokens": [len(tokens[i]) for i in kept],
        "unknown_tokens": [unknown_tokens(tokens[i], unknown_id) for i in kept],
        "text_hash": [text_hash(tokens[i]) for i in kept],
        "context_hash": [context_hash(batch.contexts[i]) for i in kept],
        "preprocessing": [r.preprocessing for r in responses],
        "model_version": [r.model_version for r in responses],
        "text_logits": list(batch.logits.logits[kept].astype(np.float32)),
        "product": [r.product for r in responses],
        "confidence": [r.confidence for r in responses],
        "action": [r.action.type for r in responses],
        "desk": [r.action.desk for r in responses],
        "cached": [r.cached for r in responses],
        "text": [batch.queries[i].text if with_text else None for i in kept],
    }
    return pa.table(columns, schema=SERVED)


def _usage(responses: Sequence[PredictResponse]) -> pa.Array:
    pairs = [pair for r in responses for pair in r.features.product_usage_60d.items()]
    ends = np.cumsum([0, *(len(r.features.product_usage_60d) for r in responses)])
    items = SERVED.field("product_usage_60d").type.value_type
    products, uses = pa.array([p for p, _ in pairs], pa.string()), pa.array([u for _, u in pairs], pa.int64())
    structs = pa.StructArray.from_arrays([products, uses], fields=list(items))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs)
