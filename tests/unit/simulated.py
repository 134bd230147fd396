"""Simulated customers on disk, and how to read them."""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from features.simulate import simulate

END = date(2026, 11, 1)
LAST = END - timedelta(days=1)
WINDOW = timedelta(seconds=1800)


def run(out: Path, **arguments: Any) -> dict[str, Any]:
    return simulate(out, **{"end": END, "progress": False, **arguments})


def rows(folder: Path) -> pl.DataFrame:
    """All rows, with the day of the folder that they lie in."""
    return pl.read_parquet(folder / "**/*.parquet", hive_partitioning=True, try_parse_hive_dates=True)


def chats(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "chats.jsonl").read_text().splitlines()]


def screens_before(out: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each message and its user's screens in the half hour before it."""
    seen: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for row in rows(out / "screens").sort("at").iter_rows(named=True):
        seen[row["user_id"]].append((row["at"], row["screen"]))
    for chat in chats(out):
        at = datetime.fromisoformat(chat["at"])
        yield chat, [screen for when, screen in seen[chat["user_id"]] if at - WINDOW <= when <= at]
