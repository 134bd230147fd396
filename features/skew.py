"""Skew between serving and offline: every logged request is recomputed from raw events, and compared.

Features are recomputed as of the moment of their read; hashes and token counts, with the one preprocessing function,
from the features and the text that were served. So a difference is reported only for the step that caused it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from features.batch import aggregate_days, partials_beside, run_id, window_of
from features.delays import LAG, MAX_LAG
from features.partials import Partials, within
from features.point_in_time import MOMENT, usage_at
from features.preprocess import Preprocessor
from features.screen_skew import differing_screens
from features.served_log import served_rows
from features.served_schema import context_hash, text_hash, unknown_tokens, usage_of
from features.store import StoreConfig

FEATURES = (
    "recent_screens",
    "product_usage_60d",
    "context_hash",
    "text_hash",
    "tokens",
    "unknown_tokens",
    "preprocessing",
)
"""The columns of the served log that are compared."""
_COLUMNS = ("request_id", "user_id", "features_at", "usage_run", "degraded", "text", *FEATURES)
_SLICE = 1000
_REST_OF_MS = timedelta(microseconds=999)
"""Reads are logged in whole milliseconds; an event that arrived within the same one counts as stored before."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A served value that differs from the recomputed one."""

    feature: str
    request_id: str
    user_id: str
    features_at: datetime
    served: Any
    expected: Any


@dataclass(slots=True)
class Report:
    """Counts of requests, and the first mismatches of each feature as examples."""

    requests: int
    degraded: int
    """Requests served without features; they are not compared."""
    compared: int = 0
    mismatches: int = 0
    """Requests with at least one mismatch."""
    by_feature: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FEATURES, 0))
    lagging: int = 0
    """Requests whose screens differ, but can be explained by events that arrived within the lag; not mismatches."""
    unverifiable_usage: int = 0
    """Requests whose usage run `materialize` did not make."""
    malformed_screens: int = 0
    """Invalid rows of the screen log, in the days that were read."""
    texts: int = 0
    """Requests whose text was logged."""
    changed_runs: list[str] = field(default_factory=list)
    """Usage runs whose digest differs now: the usage log has changed since, or polars has another version."""
    examples: dict[str, list[Mismatch]] = field(default_factory=dict)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """All fields but the examples."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "examples"}

    def add(self, row: Mapping[str, Any], expected: Mapping[str, Any], examples: int) -> None:
        """Count a request and its mismatches; keep up to so many examples of each feature."""
        self.compared += 1
        wrong = [name for name, value in expected.items() if row[name] != value]
        self.mismatches += bool(wrong)
        for name in wrong:
            self.by_feature[name] += 1
            shown = self.examples.setdefault(name, [])
            if len(shown) < examples:
                who = (row["request_id"], row["user_id"], row["features_at"])
                shown.append(Mismatch(name, *who, row[name], expected[name]))


def skew(
    log: Path,
    events: Path,
    screens: Path,
    preprocessors: Sequence[Preprocessor],
    *,
    lag: timedelta = LAG,
    examples: int = 5,
    sample: int | None = None,
    partials: Partials | None = None,
    config: StoreConfig | None = None,
    progress: bool = True,
) -> Report:
    """Compare a served log with features recomputed from the raw events; Ray must have been started.

    Args:
        log: the served log.
        events: the usage log.
        screens: the screen log; without `arrived_at`, events count from `at`.
        preprocessors: those of the bundles that served; a row with another fingerprint is a mismatch.
        lag: an event that arrived within this time of a read may or may not have been stored by then.
        examples: how many mismatches of each feature to keep.
        sample: how many requests to compare, the same ones each time; default: all.
        partials: where daily aggregates are kept; default: beside the usage log, `<log>.partials`.
        config: the store's limits while it served.

    Raises:
        LogError: a log cannot be read, or the usage log has no day that a run was made of.
        ValueError: a lag that is negative or longer than `MAX_LAG`.
    """
    if not timedelta() <= lag <= MAX_LAG:
        raise ValueError(f"lag: {lag} is not between 0 and {MAX_LAG}")
    started = time.perf_counter()
    logged = served_rows(log, _COLUMNS, sample=sample)
    served = logged.filter(pl.col("degraded").list.len() == 0, pl.col("features_at").is_not_null()).with_row_index(
        "row"
    )
    report = Report(logged.height, logged.height - served.height)
    usage, report.changed_runs = _usage(served, events, partials or partials_beside(events), progress)
    moment = pl.col("features_at").cast(MOMENT) + _REST_OF_MS
    readings = served.select("row", "user_id", "recent_screens", moment=moment)
    differing, report.malformed_screens = differing_screens(readings, screens, lag, config, progress=progress)
    by_fingerprint = {preprocessor.fingerprint: preprocessor for preprocessor in preprocessors}
    with tqdm(total=served.height, desc="compare", unit="requests", disable=None if progress else True) as bar:
        for part in served.iter_slices(_SLICE):
            rows = [row | {"product_usage_60d": usage_of(row)} for row in part.iter_rows(named=True)]
            for row, expected, lagging in _recomputed(rows, usage, differing, by_fingerprint):
                report.lagging += lagging
                report.unverifiable_usage += row["row"] not in usage
                report.texts += row["text"] is not None
                report.add(row, expected, examples)
            bar.update(part.height)
    report.seconds = round(time.perf_counter() - started, 2)
    return report


def _recomputed(
    rows: Sequence[Mapping[str, Any]],
    usage: Mapping[int, Mapping[str, int]],
    differing: Mapping[int, tuple[Sequence[str], bool]],
    preprocessors: Mapping[str, Preprocessor],
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any], bool]]:
    """Each row, the expected values, and whether its screens are lagging (see `Report.lagging`).

    Lagging screens and values that cannot be recomputed are expected as they were served.
    """
    for row, expected in zip(rows, _preprocessed(rows, preprocessors), strict=True):
        screens, lagging = differing.get(row["row"], (row["recent_screens"], False))
        expected["recent_screens"] = row["recent_screens"] if lagging else screens
        expected["product_usage_60d"] = usage.get(row["row"], row["product_usage_60d"])
        yield row, expected, lagging


def _usage(
    served: pl.DataFrame, events: Path, partials: Partials, progress: bool
) -> tuple[dict[int, dict[str, int]], list[str]]:
    """The usage of each row whose run can be recomputed, and the runs whose digest differs now."""
    runs = {run: window for run in served["usage_run"].unique().sort() if run and (window := window_of(run))}
    none = served.filter(pl.col("usage_run").is_null())["row"]
    usage: dict[int, dict[str, int]] = {row: {} for row in none}
    if not runs:
        return usage, []
    needed = {day for window in runs.values() for day in window.dates()}
    made, _ = aggregate_days(events, needed, partials, progress)
    as_of = {run: window.as_of for run, window in runs.items()}
    length = {run: window.days for run, window in runs.items()}
    readings = served.filter(pl.col("usage_run").is_in(list(runs))).select(
        "row",
        "user_id",
        as_of=pl.col("usage_run").replace_strict(as_of, return_dtype=pl.Date),
        days=pl.col("usage_run").replace_strict(length, return_dtype=pl.Int64),
    )
    usage |= {row: {} for row in readings["row"]} | usage_at(readings, partials, made, progress=progress)
    changed = [run for run, window in runs.items() if run_id(window, within(made, window.first, window.last)) != run]
    return usage, changed


def _preprocessed(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Preprocessor]) -> list[dict[str, Any]]:
    """For each row the expected fingerprint, and the hashes and counts of its features and text if that is known."""
    expected: list[dict[str, Any]] = [{"preprocessing": " or ".join(sorted(known))} for _ in rows]
    for fingerprint, preprocessor in known.items():
        mine = [i for i, row in enumerate(rows) if row["preprocessing"] == fingerprint]
        for i in mine:
            context = preprocessor.context(rows[i]["recent_screens"], rows[i]["product_usage_60d"])
            expected[i] |= {"preprocessing": fingerprint, "context_hash": context_hash(context)}
        texts = [i for i in mine if rows[i]["text"] is not None]
        for i, ids in zip(texts, preprocessor.tokens([rows[i]["text"] for i in texts]), strict=True):
            unknown = unknown_tokens(ids, preprocessor.unknown_id)
            expected[i] |= {"text_hash": text_hash(ids), "tokens": len(ids), "unknown_tokens": unknown}
    return expected
