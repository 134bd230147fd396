"""Drift: compares recent requests and answers in the served log with the data that the model was trained with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from features.labelled import OUT_OF_SCOPE, Example, read_labelled
from features.parquet_columns import LogError
from features.preprocess import Ids, Preprocessor
from features.served_log import served_files
from features.served_schema import unknown_tokens, usage_of
from features.shifts import Contexts, Shift, context_shifts, share_shift, shift_of_names, shift_of_numbers, values

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
    """Shares of requests, and of training rows, that have screens or usage; degraded requests have none."""
    out_of_range: dict[str, int]
    """Requests outside the training data's range: longer, shorter, with more uses, an unknown screen or product."""
    other_preprocessing: int
    """Requests answered by a bundle with other preprocessing; their tokens are not compared."""

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
        LogError, DataError: what cannot be read, and why.
    """
    training = _training_counts([row for _, row in read_labelled(data)], preprocessor)
    served = _Counts(Contexts(known=training.contexts))
    for _, rows in served_files(log, _COLUMNS, last_days):
        served.add(rows, preprocessor)
    if not served.rows:
        raise LogError(f"{log}: the log holds no rows")
    shifts, out_of_range = _compared(training, served)
    return Drift(
        requests=served.rows,
        first=str(min(served.days)),
        last=str(max(served.days)),
        training_rows=training.rows,
        shifts=shifts,
        unknown_token_rate=served.unknown_token_rate(),
        training_unknown_token_rate=training.unknown_token_rate(),
        abstention_rate=served.abstained / served.rows,
        degraded_rate=(served.rows - served.contexts.rows) / served.rows,
        feature_rates={
            f"{prefix}{name}_rate": counts.with_context()[name] / counts.rows
            for name in served.with_context()
            for prefix, counts in (("", served), ("training_", training))
        },
        out_of_range=out_of_range,
        other_preprocessing=served.rows - served.lengths.total(),
    )


@dataclass(slots=True)
class _Counts:
    """What is compared, counted in the training data or in the served log."""

    contexts: Contexts
    """Of all rows; in the served log, of those that are not degraded."""
    rows: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """Messages by number of tokens; in the served log, of those with the same preprocessing."""
    unknown: int = 0
    """How many of these tokens the vocabulary lacks."""
    products: Counter[str] = field(default_factory=Counter)
    """Rows by label, or by answer."""
    abstained: int = 0
    days: set[date] = field(default_factory=set)

    def add(self, served: pl.DataFrame, preprocessor: Preprocessor) -> None:
        """Count the rows of a part of the served log."""
        same = served.filter(pl.col("preprocessing") == preprocessor.fingerprint)
        self.rows += served.height
        self.lengths.update(same["tokens"].to_list())
        self.unknown += int(same["unknown_tokens"].sum())
        self.products.update(served["product"].to_list())
        self.abstained += served.filter(pl.col("action") == "general_queue").height
        self.days |= {*served["answered_at"].dt.date().unique()}
        for row in served.filter(pl.col("degraded").list.len() == 0).iter_rows(named=True):
            self.contexts.add(preprocessor.context(row["recent_screens"], usage_of(row)))

    def with_context(self) -> dict[str, int]:
        """How many rows have screens, and how many have usage."""
        return {"with_screens": self.contexts.with_screens, "with_usage": self.contexts.with_usage}

    def unknown_token_rate(self) -> float | None:
        tokens = sum(length * messages for length, messages in self.lengths.items())
        return self.unknown / tokens if tokens else None


def _training_counts(rows: Sequence[Example], preprocessor: Preprocessor) -> _Counts:
    ids, contexts = _tokens(rows, preprocessor), Contexts()
    for row in rows:
        contexts.add(preprocessor.context(row.recent_screens, row.product_usage_60d))
    return _Counts(
        contexts,
        len(rows),
        Counter(map(len, ids)),
        sum(unknown_tokens(row, preprocessor.unknown_id) for row in ids),
        Counter(row.product for row in rows if row.product != OUT_OF_SCOPE),
    )


def _compared(training: _Counts, served: _Counts) -> tuple[list[Shift], dict[str, int]]:
    """The shift of each feature, and how many requests are outside its range in the training data."""
    expected, actual = training.with_context(), served.with_context()
    shortest, longest = min(training.lengths), max(training.lengths)
    shifts = [
        shift_of_numbers("tokens", values(training.lengths), values(served.lengths)),
        shift_of_names("product", training.products, served.products),
        *context_shifts(training.contexts, served.contexts),
        *(share_shift(name, (expected[name], training.rows), (actual[name], served.rows)) for name in actual),
    ]
    return shifts, {
        "tokens": sum(n for length, n in served.lengths.items() if not shortest <= length <= longest),
        "product": sum(count for name, count in served.products.items() if name not in training.products),
        "recent_screens": served.contexts.unseen_screens,
        "product_usage_60d": served.contexts.unseen_usage,
    }


def _tokens(rows: Sequence[Example], preprocessor: Preprocessor) -> list[Ids]:
    parts = [rows[first : first + _TEXTS_AT_ONCE] for first in range(0, len(rows), _TEXTS_AT_ONCE)]
    return [ids for part in parts for ids in preprocessor.tokens([row.text for row in part])]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
