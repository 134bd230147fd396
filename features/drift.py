"""Drift: what the service is asked and what it answers these days, against the data that its model was trained with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.labelled import OUT_OF_SCOPE, Labelled, read_labelled
from features.preprocess import ContextInput, Ids, Preprocessor
from features.served_log import served_rows
from features.shifts import Shift, screen_shift, share_shift, shift_of_names, shift_of_numbers, usage_shifts

_COLUMNS = (
    "answered_at",
    "tokens",
    "unknown_tokens",
    "recent_screens",
    "product_usage_60d",
    "product",
    "action",
    "degraded",
    "preprocessing",
)
_TEXTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Drift:
    """Shifts and rates. Rates are shares between 0 and 1; None where there is nothing to count."""

    requests: int
    first: str
    last: str
    training_rows: int
    shifts: list[Shift]
    unknown_token_rate: float | None
    training_unknown_token_rate: float | None
    abstention_rate: float
    """Share of the requests that went to the general queue."""
    degraded_rate: float
    """Share of the requests that were answered without features."""
    feature_rates: dict[str, float]
    """Share of the requests that have screens, and usage, and of the training rows; those degraded have none."""
    out_of_range: dict[str, int]
    """Requests with a value that no training row has: longer or shorter, more uses, another screen or product."""
    other_preprocessing: int
    """Requests that a bundle with another preprocessing answered; their tokens are not compared."""

    @property
    def rates(self) -> dict[str, float | None]:
        return {
            "unknown_token_rate": self.unknown_token_rate,
            "training_unknown_token_rate": self.training_unknown_token_rate,
            "abstention_rate": self.abstention_rate,
            "degraded_rate": self.degraded_rate,
            **self.feature_rates,
        }

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "days": [self.first, self.last],
            "training_rows": self.training_rows,
            "psi": {shift.feature: _rounded(shift.psi) for shift in self.shifts},
            "shifted": [shift.feature for shift in self.shifts if shift.reading.endswith("shift")],
            **{name: _rounded(rate) for name, rate in self.rates.items()},
            "out_of_range": self.out_of_range,
            "other_preprocessing": self.other_preprocessing,
        }


def drift(log: Path, data: Path, preprocessor: Preprocessor, last_days: int | None = None) -> Drift:
    """Compare a served log with training data.

    Args:
        data: labelled JSONL or CSV, or a folder of JSONL files.
        preprocessor: the served bundle's.
        last_days: only so many days of the log, up to its newest.

    Raises:
        LogError, LabelledError: what cannot be read, and why.
    """
    training, served = read_labelled(data), served_rows(log, _COLUMNS, last_days)
    same = served.filter(pl.col("preprocessing") == preprocessor.fingerprint)
    known = served.filter(pl.col("degraded").list.len() == 0)
    ids = _tokens(training, preprocessor)
    lengths = np.array([len(row) for row in ids])
    contexts = [preprocessor.context(row.screens, row.usage) for row in training]
    read = [_context(row, preprocessor) for row in known.iter_rows(named=True)]
    before, now = _having(contexts), _having(read)
    products = Counter(row.label for row in training if row.label != OUT_OF_SCOPE)
    answers = Counter(served["product"].to_list())
    screens, strange_screens = screen_shift(contexts, read)
    usage, strange_usage = usage_shifts(contexts, read)
    tokens = same["tokens"].to_numpy()
    days = served["answered_at"].dt.date()
    return Drift(
        requests=served.height,
        first=str(days.min()),
        last=str(days.max()),
        training_rows=len(training),
        shifts=[
            shift_of_numbers("tokens", lengths, tokens),
            shift_of_names("product", products, answers),
            screens,
            *usage,
            *(share_shift(name, (before[name], len(training)), (now[name], served.height)) for name in now),
        ],
        unknown_token_rate=_rate(same["unknown_tokens"].to_numpy().sum(), tokens.sum()),
        training_unknown_token_rate=_rate(_count_unknown(ids, preprocessor), lengths.sum()),
        abstention_rate=served.filter(pl.col("action") == "general_queue").height / served.height,
        degraded_rate=(served.height - known.height) / served.height,
        feature_rates={
            f"{prefix}{name}_rate": having[name] / rows
            for name in now
            for prefix, having, rows in (("", now, served.height), ("training_", before, len(training)))
        },
        out_of_range={
            "tokens": int(((tokens < lengths.min()) | (tokens > lengths.max())).sum()),
            "product": sum(count for name, count in answers.items() if name not in products),
            "recent_screens": strange_screens,
            "product_usage_60d": strange_usage,
        },
        other_preprocessing=served.height - same.height,
    )


def _tokens(rows: Sequence[Labelled], preprocessor: Preprocessor) -> list[Ids]:
    parts = [rows[first : first + _TEXTS_AT_ONCE] for first in range(0, len(rows), _TEXTS_AT_ONCE)]
    return [ids for part in parts for ids in preprocessor.tokens([row.text for row in part])]


def _context(row: Mapping[str, Any], preprocessor: Preprocessor) -> ContextInput:
    usage = {pair["product"]: pair["uses"] for pair in row["product_usage_60d"]}
    return preprocessor.context(row["recent_screens"], usage)


def _having(contexts: Sequence[ContextInput]) -> dict[str, int]:
    return {
        "with_screens": sum(bool(context.recent_screens) for context in contexts),
        "with_usage": sum(bool(context.product_usage_60d) for context in contexts),
    }


def _count_unknown(ids: Sequence[Ids], preprocessor: Preprocessor) -> int:
    return sum(int(np.count_nonzero(row == preprocessor.unknown_id)) for row in ids)


def _rate(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
