"""Labelled rows for training, written so that `python -m models train` reads them."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from features.drafts import replacing


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A labelled message with its context. `at` is RFC 3339, UTC."""

    text: str
    product: str
    recent_screens: list[str]
    """Oldest first."""
    product_usage_60d: Mapping[str, int]
    user_id: str
    at: str
    request_id: str | None = None


def write_rows(out: Path, rows: Iterable[TrainingRow]) -> int:
    """Write rows, atomically, as JSON lines, or as CSV if the name ends in `.csv`; returns their number."""
    with replacing(out) as draft:
        return _write_csv(draft, rows) if out.suffix.lower() == ".csv" else _write_json(draft, rows)


def _write_json(path: Path, rows: Iterable[TrainingRow]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            present = {name: value for name, value in asdict(row).items() if value is not None}
            file.write(json.dumps(present, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_csv(path: Path, rows: Iterable[TrainingRow]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(TrainingRow)])
        writer.writeheader()
        for row in rows:
            context = {name: json.dumps(getattr(row, name)) for name in ("recent_screens", "product_usage_60d")}
            writer.writerow(asdict(row) | context)
            count += 1
    return count
