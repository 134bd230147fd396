"""Training sets: labelled chats with the features that the service would have read when each message was sent."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from features.batch import Window, aggregate_days, day_counts, partials_beside
from features.delays import MAX_RUN_DELAY, RUN_DELAY
from features.labelled import Chat, read_chats
from features.partials import Partials
from features.point_in_time import MOMENT, screens_at, usage_at
from features.preprocess import Preprocessor
from features.schema import rfc3339
from features.store import StoreConfig
from features.training_rows import TrainingRow, write_rows


def training_set(
    chats: Path,
    events: Path,
    screens: Path,
    out: Path,
    preprocessor: Preprocessor,
    *,
    run_delay: timedelta = RUN_DELAY,
    window_days: int = 60,
    partials: Partials | None = None,
    config: StoreConfig | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Join chats with features as of their times, and write training rows; Ray must have been started.

    Args:
        chats: JSONL or CSV: text, product, user_id, at, and request_id if there is one.
        events: the usage log, day-partitioned Parquet: event_id, user_id, product, at.
        screens: the screen log, day-partitioned Parquet: event_id, user_id, screen, at, and arrived_at if known.
        out: rows that `python -m models train` reads, in the order of the chats; CSV if it ends in `.csv`.
        preprocessor: normalises the features, as in serving.
        run_delay: how long after 00:00 UTC of a day its usage run is available.
        window_days: length of a usage run's window.
        partials: where daily aggregates are kept; default: beside the log, `<log>.partials`.
        config: the store's limits in serving.

    Returns:
        Counts: rows, of these with screens and with usage; days of usage read, missing; malformed rows of the usage log
        and of the screen log, in the days that were read.

    Raises:
        DataError: a chat is invalid; the message names file, row and column.
        LogError: the usage log has none of the days, a file is damaged, or a column has a wrong type.
        ValueError: the run delay is negative or longer than `MAX_RUN_DELAY`.
    """
    if not timedelta() <= run_delay <= MAX_RUN_DELAY:
        raise ValueError(f"run_delay: {run_delay} is not between 0 and {MAX_RUN_DELAY}")
    started = time.perf_counter()
    messages = read_chats(chats)
    readings = _readings(messages, run_delay, window_days)
    usage, usage_counts = _usage(readings, events, partials or partials_beside(events), window_days, progress)
    recent_screens, malformed_screens = screens_at(readings, screens, config, progress=progress)
    return {
        "out": str(out),
        "rows": write_rows(out, _rows(messages, recent_screens, usage, preprocessor)),
        "with_screens": len(recent_screens),
        "with_usage": len(usage),
        **usage_counts,
        "malformed_screens": malformed_screens,
        "run_delay_hours": run_delay / timedelta(hours=1),
        "preprocessing": preprocessor.fingerprint,
        "seconds": round(time.perf_counter() - started, 2),
    }


def run_before(moment: datetime, delay: timedelta = RUN_DELAY) -> date:
    """The as-of date of the latest usage run that was available at a moment."""
    return (moment.astimezone(UTC) - delay).date()


def _readings(messages: Sequence[Chat], delay: timedelta, days: int) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "row": range(len(messages)),
        "user_id": [chat.user_id for chat in messages],
        "moment": [chat.at.astimezone(UTC) for chat in messages],
        "as_of": [run_before(chat.at, delay) for chat in messages],
    }
    schema: dict[str, Any] = {"row": pl.Int64, "user_id": pl.String, "moment": MOMENT, "as_of": pl.Date}
    return pl.DataFrame(columns, schema=schema).with_columns(pl.lit(days, pl.Int64).alias("days"))


def _usage(
    readings: pl.DataFrame, events: Path, partials: Partials, window_days: int, progress: bool
) -> tuple[dict[int, dict[str, int]], dict[str, Any]]:
    """The uses of each row that has any, and counts of the days of usage that the rows need."""
    needed = {day for run in readings["as_of"].unique() for day in Window(run, window_days).dates()}
    days, reused = aggregate_days(events, needed, partials, progress)
    counts = {
        "usage_window": [str(min(needed)), str(max(needed))],
        **day_counts(len(needed), days, reused),
        "malformed": sum(day.malformed for day in days),
    }
    return usage_at(readings, partials, days, progress=progress), counts


def _rows(
    messages: Sequence[Chat],
    screens: Mapping[int, Sequence[str]],
    usage: Mapping[int, Mapping[str, int]],
    preprocessor: Preprocessor,
) -> Iterator[TrainingRow]:
    for row, chat in enumerate(messages):
        context = preprocessor.context(screens.get(row, ()), usage.get(row, {}))
        yield TrainingRow(
            chat.text,
            chat.product,
            list(context.recent_screens),
            dict(context.product_usage_60d),
            chat.user_id,
            rfc3339(chat.at),
            chat.request_id,
        )
