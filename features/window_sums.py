"""Uses of a bucket of users over a window of days: the previous run's sums, plus the days that entered the window,
minus those that left it.

The file of the sums lists the partials that they consist of. If it does not help (another version, damage, a partial
that was replaced), all partials of the window are summed instead. Integers make both results equal.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.pair_sums import pair_sums
from features.parquet_columns import LogError
from features.partials import BUCKETS, FORMAT, SCHEMA, Partial, Partials, checksum, keeping

Day = tuple[str, str]
"""A day, and the digest of its partial."""
_SUMS = SCHEMA.set(2, pa.field("uses", pa.int64()))
_FACTS = b"switchboard"


def window_sums(partials: Partials, number: int, window: Sequence[Partial]) -> pl.DataFrame:
    """Uses of one bucket's users over the days of some partials: user_id, product (categorical), uses.

    The sums are kept for the next run.

    Raises:
        LogError: a partial was replaced or is damaged.
        OSError: the sums cannot be written, see `keeping`.
    """
    path = partials.folder / "window" / f"bucket={number}.arrow"
    days = {(partial.day, partial.digest) for partial in window}
    sums = _from_kept(path, partials, number, days)
    if sums is None:
        sums = total((partials.batch(number, *day), 1) for day in days)
    _keep(path, number, sums, days)
    return sums


def total(batches: Iterable[tuple[pa.RecordBatch, int]]) -> pl.DataFrame:
    """The sum of batches (user_id, product, uses), each multiplied by its sign; pairs with sum zero are left out."""
    signed = [(batch, sign) for batch, sign in batches if batch.num_rows]
    if not signed:
        return pl.DataFrame(schema={"user_id": pl.String, "product": pl.Categorical, "uses": pl.Int64})
    users = pa.chunked_array([batch["user_id"] for batch, _ in signed]).dictionary_encode().combine_chunks()
    products = pa.chunked_array([batch["product"] for batch, _ in signed]).unify_dictionaries().combine_chunks()
    uses = np.concatenate([batch["uses"].to_numpy() * np.int64(sign) for batch, sign in signed])
    sums = pair_sums(users, products, uses)
    return pl.DataFrame(
        {
            "user_id": pl.Series(values=sums.users)[sums.user],
            "product": pl.Series(values=sums.products).cast(pl.Categorical)[sums.product],
            "uses": sums.uses,
        }
    )


def _from_kept(path: Path, partials: Partials, number: int, days: set[Day]) -> pl.DataFrame | None:
    """The sums over some days, computed from the kept ones; None if these are missing, damaged or no faster."""
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            facts = json.loads(reader.schema.metadata[_FACTS])
            kept = reader.get_batch(0).replace_schema_metadata(None)
        if kept.schema != _SUMS:
            return None
        kept.validate()
        before = {(day, content) for day, content in facts.pop("days")}
        if facts != _facts(number, kept) or len(days ^ before) >= len(days):
            return None
        changes = [(partials.batch(number, *day), 1 if day in days else -1) for day in days ^ before]
    except (LogError, OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    sums = total([(kept, 1), *changes])
    return sums if (sums["uses"] > 0).all() else None


def _keep(path: Path, number: int, sums: pl.DataFrame, days: set[Day]) -> None:
    table = sums.to_arrow().cast(_SUMS).combine_chunks()
    rows = pa.record_batch([column.combine_chunks() for column in table.columns], _SUMS)
    schema = _SUMS.with_metadata({_FACTS: json.dumps({**_facts(number, rows), "days": sorted(days)})})
    with keeping(path) as draft, pa.ipc.new_file(draft, schema) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.metadata))


def _facts(number: int, rows: pa.RecordBatch) -> dict[str, object]:
    return {"format": FORMAT, "buckets": BUCKETS, "checksum": checksum(number, rows)}
