"""Simulated customers: usage log, screen log and chats, of any size, from a seed.

    OUT/usage/day=YYYY-MM-DD/part-00000.parquet     event_id, user_id, product, at
    OUT/screens/day=YYYY-MM-DD/part-00000.parquet   event_id, user_id, screen, at, arrived_at
    OUT/screens/day=YYYY-MM-DD/eve-00000.parquet    the same, of journeys that end on the next day
    OUT/chats.jsonl                                 request_id, user_id, at, text, product

Users own products as the demo's users do, use what they own (a Poisson number of times a day, more on weekdays and at
daytime) and ask about what they browsed (`features.journeys`). Without `events`, a day's usage does not depend on which
other days are simulated, so that a log can be extended. One day is in memory at a time; files are written atomically.
"""

import json
import time
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from features.drafts import replacing
from features.journeys import load_texts
from features.labelled import CORPUS
from features.population import population
from features.simulated_days import conversations, scale_for, usage_days

FIRST_DAY = date(1970, 1, 2)
MAX_ROWS = 10_000_000
"""Maximum number of users, messages and files a day; each takes some hundred bytes of memory."""
MAX_EVENTS_A_DAY = 50_000_000


def simulate(
    out: Path,
    *,
    users: int,
    days: int,
    end: date,
    events: int | None = None,
    messages: int = 1000,
    seed: int = 0,
    messages_file: Path | None = None,
    files_per_day: int = 1,
    malformed: float = 0.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the usage of the `days` days before `end`, and the screens and messages of the last of them.

    Existing files of the same days and `chats.jsonl` are replaced.

    Args:
        out: the folder to write to.
        end: the first day (UTC) after the simulated ones.
        events: total of usage events, about; default: as many as the demo's users make, 90 a user in 60 days.
        messages: number of messages; as many other journeys end without one.
        messages_file: labelled messages, JSONL, CSV or a folder of JSONL files; default: the project's corpus.
        malformed: share of usage rows without a user, product or time, or with a time of another day.

    Returns:
        The arguments `out`, `users` and `days`, the rows written (`usage_events`, of these `redelivered` and
        `malformed`; `screen_events`; `messages`) and `seconds`.

    Raises:
        ValueError: an argument is out of its range, or messages cannot be read.
    """
    started = time.perf_counter()
    _check(users, days, end, events, messages, files_per_day, malformed)
    people, texts = population(users, seed), load_texts(messages_file or CORPUS)
    dates = [end - timedelta(days=ago) for ago in range(days, 0, -1)]
    scale = 1.0 if events is None else scale_for(people, dates, events)
    rows = {"usage_events": 0, "redelivered": 0, "malformed": 0, "screen_events": 0}
    log = usage_days(people, dates, seed, scale, malformed)
    for day, table, counts in tqdm(log, "simulate", days, unit="day", disable=None if progress else True):
        _write_day(out / "usage", day, table, "product", files_per_day)
        for name, count in {"usage_events": table.num_rows, **counts}.items():
            rows[name] += count
    chats, eve, today = conversations(people, texts, dates[-1], seed, messages)
    _write_day(out / "screens", dates[-1] - timedelta(days=1), eve, "screen", min(eve.num_rows, 1), "eve")
    _write_day(out / "screens", dates[-1], today, "screen", files_per_day)
    rows["screen_events"] = eve.num_rows + today.num_rows
    _write_lines(out / "chats.jsonl", chats)
    seconds = round(time.perf_counter() - started, 2)
    return {"out": str(out), "users": users, "days": days, **rows, "messages": len(chats), "seconds": seconds}


def _check(
    users: int, days: int, end: date, events: int | None, messages: int, files_per_day: int, malformed: float
) -> None:
    counts = {
        "users": (users, 1, MAX_ROWS),
        "days": (days, 1, MAX_ROWS),
        "files_per_day": (files_per_day, 1, MAX_ROWS),
        "events": (events or 0, 0, MAX_EVENTS_A_DAY * days),
        "messages": (messages, 0, MAX_ROWS),
    }
    for name, (value, least, most) in counts.items():
        if value < least:
            raise ValueError(f"{name}: {value} is less than {least}")
        if value > most:
            raise ValueError(f"{name}: {value} is more than {most}")
    if days > (end - FIRST_DAY).days:
        raise ValueError(f"days: {days} days before {end} begin before {FIRST_DAY}")
    if not 0 <= malformed <= 1:
        raise ValueError(f"malformed: {malformed} is not a share between 0 and 1")


def _write_day(folder: Path, day: date, table: pa.Table, value: str, files: int, kind: str = "part") -> None:
    """Write a day's rows to `files` files `KIND-*.parquet`, `value` as dictionary; delete an earlier run's others."""
    folder = folder / f"day={day}"
    bounds = [table.num_rows * part // max(files, 1) for part in range(files + 1)]
    written = set()
    for part, (start, stop) in enumerate(pairwise(bounds)):
        path = folder / f"{kind}-{part:05}.parquet"
        with replacing(path) as draft:
            pq.write_table(table.slice(start, stop - start), draft, compression="zstd", use_dictionary=[value])
        written.add(path)
    for stale in set(folder.glob(f"{kind}-*.parquet")) - written:
        stale.unlink()


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    with replacing(path) as draft:
        draft.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
