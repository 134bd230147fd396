"""Labelled chats: read them, group near-duplicates, split them the same way every time."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.duplicates import clusters

OUT_OF_SCOPE = "out_of_scope"
CORPUS = Path(__file__).parent / "corpus"
Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where each row of a file stands, and its columns."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled message. `product` is `OUT_OF_SCOPE` for a message that is about none of them."""

    text: str
    product: str
    recent_screens: tuple[str, ...] = ()
    """Oldest first."""
    product_usage_60d: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_context(self) -> bool:
        return bool(self.recent_screens or self.product_usage_60d)


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled messages by what they are for; `split` keeps those that are nearly equal in one part."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    calibration: list[Example] = field(default_factory=list)
    """Rows for temperature and thresholds, where the validation rows are harder or easier than what is served."""


class DataError(ValueError):
    """A file that cannot be read as labelled chats; the message names file, row and column."""


def load_validation(path: Path) -> list[Example]:
    """The validation rows that a file brings along; only CLINC150's layout has any, others give none."""
    if path.suffix.lower() != ".json":
        return []
    return [_example(row, where, None) for where, row in _clinc_rows(path, ("val", "oos_val"))]


def is_corpus(path: Path) -> bool:
    """Whether a path is that of the own corpus, which has splits and a hold-out of its own."""
    return path.resolve() == CORPUS.resolve()


def load(path: Path, product: str | None = None) -> list[Example]:
    """Read labelled chats from a CSV or JSONL file, or from every JSONL file of a folder.

    Args:
        path: CSV with a header, or JSON lines: `text`, and `product` or `category`; optionally
            `recent_screens` (a list, or in CSV a JSON list or names joined by `|`) and `product_usage_60d`.
            The label `oos` is read as `OUT_OF_SCOPE`. A `.json` file has CLINC150's layout: lists `train` and
            `oos_train` of `[text, label]`.
        product: the label of every row, whatever the file says, such as that of an out-of-scope file.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise DataError(f"{path}: the folder holds no .jsonl file")
        return [example for file in files for example in load(file, product)]
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows = _ROWS.get(path.suffix.lower())
    if rows is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(_ROWS)}, or a folder")
    examples = [_example(row, where, product) for where, row in rows(path)]
    if not examples:
        raise DataError(f"{path}: the file holds no rows")
    return examples


def labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """The products that occur, sorted, without `OUT_OF_SCOPE`."""
    return tuple(sorted({example.product for example in examples} - {OUT_OF_SCOPE}))


def split(examples: Sequence[Example], validation: float = 0.1, test: float = 0.1) -> Split:
    """Deterministic split by cluster: equal and nearly equal texts always fall on the same side.

    Membership depends on the cluster's smallest text only, so it survives added or reordered rows.
    """
    texts = [example.text for example in examples]
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    smallest: dict[int, str] = {}
    owners = clusters(texts)
    for text, owner in zip(texts, owners, strict=True):
        smallest[owner] = min(smallest.get(owner, text), text)
    for example, owner in zip(examples, owners, strict=True):
        draw = int.from_bytes(hashlib.sha256(smallest[owner].encode(errors="surrogatepass")).digest()[:8]) / 2**64
        parts[2 if draw < test else 1 if draw < test + validation else 0].append(example)
    train, held, tested = parts
    return Split(train, held, tested)


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over the rows' content, independent of their order."""
    rows = sorted(
        json.dumps([e.text, e.product, e.recent_screens, sorted(e.product_usage_60d.items())]) for e in examples
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _lines(path: Path) -> io.StringIO:
    content = path.read_bytes()
    try:
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}: not UTF-8: {error.reason}") from None


def _csv_rows(path: Path) -> Rows:
    reader = csv.DictReader(_lines(path), strict=True)
    number = 1
    try:
        for row in reader:
            number = reader.line_num
            if None in row:
                raise DataError(f"{path}:{number}: more fields than the header has; quote texts that hold commas")
            yield f"{path}:{number}", row
    except csv.Error as error:
        raise DataError(f"{path}:{number + 1}: not CSV: {error}") from None


def _jsonl_rows(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield f"{path}:{number}", row


def _parsed(content: str | bytes) -> Any:
    """JSON; a `ValueError` for whatever is wrong with it."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _clinc_rows(path: Path, parts: Sequence[str]) -> Rows:
    """Rows of a JSON file such as CLINC150's."""
    try:
        content = _parsed(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or not any(part in content for part in ("train", "oos_train")):
        raise DataError(f"{path}: expected an object with the lists {' and '.join(parts)}")
    for part in parts:
        rows = content.get(part, [])
        if not isinstance(rows, list):
            raise DataError(f"{path}: {part}: expected a list, got {type(rows).__name__}")
        for number, row in enumerate(rows):
            where = f"{path}: {part}[{number}]"
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(value, str) for value in row)):
                raise DataError(f"{where}: expected [text, label]")
            yield where, {"text": row[0], "product": row[1]}


_ROWS: Mapping[str, Callable[[Path], Rows]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".json": lambda path: _clinc_rows(path, ("train", "oos_train")),
}


_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
"""What JSON calls the types that are no strings."""


def _example(row: dict[str, Any], where: str, product: str | None) -> Example:
    if row.get("text") is None:
        raise DataError(f"{where}: column 'text' is missing; columns: {sorted(map(str, row))}")
    text = _string(row, "text", where)
    product = product or _string(row, "category" if row.get("product") in (None, "") else "product", where).strip()
    if not product:
        raise DataError(f"{where}: no 'product' or 'category'; columns: {sorted(map(str, row))}")
    product = OUT_OF_SCOPE if product == "oos" else product
    column = "recent_screens"
    try:
        screens = _screens(row.get(column))
        column = "product_usage_60d"
        return Example(text, product, screens, _usage(row.get(column)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: column {column!r}: {error}") from None


def _string(row: Mapping[str, Any], column: str, where: str) -> str:
    """The string in a column, empty where there is none."""
    value = row.get(column, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} is {_KINDS[type(value)]}, expected a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: column {column!r}: not UTF-8: {error.reason}") from None
    return value


def _screens(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith("[") else value.split("|") if value else []
    if not isinstance(value or [], list):
        raise ValueError(f"expected a list, got {_KINDS.get(type(value), 'a string')}")
    return tuple(str(screen) for screen in value or [])


def _usage(value: Any) -> dict[str, int]:
    if isinstance(value, str):
        value = _parsed(value) if value else {}
    if not isinstance(value or {}, dict):
        raise ValueError(f"expected an object, got {_KINDS.get(type(value), 'a string')}")
    return {str(product): int(uses) for product, uses in (value or {}).items()}
