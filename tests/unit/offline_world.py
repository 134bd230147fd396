"""Event logs on disk and as frames, and what features they give, computed one event after the other."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from features.preprocess import Preprocessor
from features.store import StoreConfig
from features.training_set import training_set

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MS = timedelta(milliseconds=1)
_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Screen:
    """A screen event; `arrived` is None where the log does not know it."""

    event_id: str
    user_id: str
    screen: str
    at: datetime
    arrived: datetime | None = None


@dataclass(frozen=True)
class Use:
    user_id: str
    product: str
    at: datetime


def screen_frame(events: Iterable[Screen]) -> pl.DataFrame:
    """As `read_day` gives a day of screens."""
    rows = [(e.event_id, e.user_id, e.screen, e.at, e.arrived) for e in events]
    text = pl.String()
    schema = {"event_id": text, "user_id": text, "screen": text, "at": _TIME, "arrived_at": _TIME}
    return pl.DataFrame(rows, schema=schema, orient="row")


def use_frame(uses: Iterable[Use]) -> pl.DataFrame:
    """As the usage log has them."""
    rows = [(f"e{i}", use.user_id, use.product, use.at) for i, use in enumerate(uses)]
    schema = {"event_id": pl.String(), "user_id": pl.String(), "product": pl.String(), "at": _TIME}
    return pl.DataFrame(rows, schema=schema, orient="row")


def daily(uses: Iterable[Use]) -> pl.DataFrame:
    """As `Partials.read` gives a bucket."""
    frame = use_frame(uses).with_columns(pl.col("at").dt.date().alias("day"))
    return frame.group_by("user_id", "product", "day").agg(pl.len().alias("uses"))


def write_days(folder: Path, frame: pl.DataFrame) -> Path:
    """One Parquet file a day of `at`."""
    folder.mkdir(parents=True, exist_ok=True)
    for (day,), part in (
        frame.with_columns(pl.col("at").dt.date().alias("day"))
        .partition_by("day", as_dict=True, include_key=False)
        .items()
    ):
        target = folder / f"day={day}"
        target.mkdir(exist_ok=True)
        part.write_parquet(target / "part-0.parquet")
    return folder


def write_world(world: Path, screens: Iterable[Screen], uses: Iterable[Use], sent: Mapping[str, datetime]) -> Path:
    """The logs `screens` and `usage`, and `chats.jsonl` with a message of each user."""
    write_days(world / "screens", screen_frame(screens))
    write_days(world / "usage", use_frame(uses))
    chats = [
        {"text": f"hi {user}", "product": "loans", "user_id": user, "at": at.isoformat()} for user, at in sent.items()
    ]
    (world / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return world


def build(world: Path, preprocessor: Preprocessor, out: str = "set.jsonl", **options: Any) -> dict[str, Any]:
    """The training set of a world's chats and logs."""
    logs = (world / "chats.jsonl", world / "usage", world / "screens")
    return training_set(*logs, world / out, preprocessor, progress=False, **options)


def readings(rows: Sequence[tuple[str, datetime]], **more: Any) -> pl.DataFrame:
    """Users and moments, numbered."""
    columns = {"row": range(len(rows)), "user_id": [user for user, _ in rows], "moment": [at for _, at in rows]}
    schema = {"row": pl.Int64(), "user_id": pl.String(), "moment": _TIME}
    return pl.DataFrame(columns, schema=schema).with_columns(**more)


def screens_then(events: Iterable[Screen], user: str, moment: datetime, config: StoreConfig) -> list[str]:
    """The recent screens of a user at a moment, by the definition."""
    since = _ms(moment) - config.screen_window_s * 1000
    newest: dict[tuple[str, str], int] = {}
    for event in events:
        if event.user_id == user and (event.arrived or event.at) <= moment and _ms(event.at) >= since:
            key = (event.event_id, event.screen)
            newest[key] = max(_ms(event.at), newest.get(key, 0))
    ordered = sorted(newest, key=lambda key: (newest[key], "\x1f".join(key).encode()))
    return [screen for _, screen in ordered[-config.max_screens :]]


def usage_then(uses: Iterable[Use], user: str, as_of: date, days: int) -> dict[str, int]:
    """The uses of a user in the window of a run, by the definition."""
    counts: dict[str, int] = {}
    for use in uses:
        if use.user_id == user and as_of - timedelta(days) <= use.at.date() < as_of:
            counts[use.product] = counts.get(use.product, 0) + 1
    return counts


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MS
