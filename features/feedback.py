"""Feedback, the product that a request turned out to be about: joined with the served log, it gives training rows.

It comes from the Redis stream `events:feedback` or from a file, with the columns `request_id, product, at`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import polars as pl
from redis.asyncio import Redis

from features.rows import DataError, read_structs
from features.schema import FEEDBACK_STREAM, Identifier, Product, rfc3339
from features.served_log import served_files
from features.served_schema import usage_of
from features.stream import pages
from features.training_rows import TrainingRow, write_rows

_CLOCK_SLACK = timedelta(minutes=1)
_COLUMNS = ("request_id", "answered_at", "user_id", "recent_screens", "product_usage_60d", "degraded", "text")


class Feedback(msgspec.Struct, frozen=True):
    """The product that a request was about, and when that was reported."""

    request_id: Identifier
    product: Product
    at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Message(msgspec.Struct, frozen=True):
    """The columns of a chat file that are needed here."""

    text: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """The newest feedback of each request, the number of all entries, and of those that could not be parsed."""

    newest: Mapping[str, Feedback]
    entries: int
    malformed: int = 0


def collect(entries: Sequence[Feedback], malformed: int = 0) -> Collected:
    """Keep the newest entry of each request; of entries with the same time, the last one."""
    newest: dict[str, Feedback] = {}
    for entry in entries:
        if entry.request_id not in newest or entry.at >= newest[entry.request_id].at:
            newest[entry.request_id] = entry
    return Collected(newest, len(entries), malformed)


def feedback_in_file(path: Path) -> Collected:
    """Feedback from JSON lines or CSV.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    return collect([feedback for _, feedback in read_structs(path, Feedback)])


async def feedback_in_stream(redis: Redis) -> Collected:
    """Feedback from the stream; malformed entries are only counted."""
    entries: list[Feedback] = []
    malformed = 0
    async for page in pages(redis, FEEDBACK_STREAM):
        for _, fields in page:
            try:
                entries.append(msgspec.convert(fields, Feedback))
            except msgspec.ValidationError:
                malformed += 1
    return collect(entries, malformed)


def feedback_set(feedback: Collected, log: Path, out: Path, chats: Path | None = None) -> dict[str, Any]:
    """Write training rows: text and features from the served log, the label from feedback.

    Args:
        log: the served log.
        out: rows that `python -m models train` reads; CSV if it ends in `.csv`.
        chats: texts by request_id, for a log without texts.

    Returns:
        Counts: rows, of these degraded (without features); entries of feedback, duplicate, malformed, of unknown
        requests, and without text.

    Raises:
        LogError, DataError: a log or file cannot be read, or there is no row to write; `out` is then left as it was.
    """
    texts = _texts(chats) if chats else {}
    served = _served(log, feedback.newest)
    labelled = [_row(row, feedback.newest[name], texts) for name, row in served.items()]
    rows = sorted((row for row in labelled if row is not None), key=lambda row: (row.at, row.request_id))
    counts = {
        "feedback": feedback.entries,
        "duplicates": feedback.entries - len(feedback.newest),
        "malformed": feedback.malformed,
        "unknown_requests": len(feedback.newest) - len(served),
        "without_text": len(served) - len(rows),
    }
    if not rows:
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
        raise DataError(f"{log}: no answer in it has both feedback and a text, so there is no row to write ({told})")
    kept = {row.request_id for row in rows}
    degraded = sum(bool(row["degraded"]) for name, row in served.items() if name in kept)
    return {"out": str(out), "rows": write_rows(out, rows), "degraded": degraded, **counts}


def _texts(chats: Path) -> dict[str, str]:
    return {chat.request_id: chat.text for _, chat in read_structs(chats, _Message) if chat.request_id}


def _served(log: Path, wanted: Mapping[str, Feedback]) -> dict[str, dict[str, Any]]:
    """The answer that each feedback is about: of several with its request id, the last one before it."""
    names = pl.Series(list(wanted), dtype=pl.String).implode()
    found: dict[str, dict[str, Any]] = {}
    for _, frame in served_files(log, _COLUMNS):
        for row in frame.filter(pl.col("request_id").is_in(names)).iter_rows(named=True):
            name, at = row["request_id"], row["answered_at"]
            if at - wanted[name].at <= _CLOCK_SLACK and (name not in found or at >= found[name]["answered_at"]):
                found[name] = row
    return found


def _row(served: Mapping[str, Any], feedback: Feedback, texts: Mapping[str, str]) -> TrainingRow | None:
    text = served["text"] if served["text"] is not None else texts.get(feedback.request_id)
    if text is None:
        return None
    return TrainingRow(
        text,
        feedback.product,
        served["recent_screens"],
        usage_of(served),
        served["user_id"],
        rfc3339(served["answered_at"]),
        feedback.request_id,
    )
