"""Rows of CSV and JSON lines with their places, so that whatever is wrong with one is told by file, row and column."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)
Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]
"""Where each row stands, `file:line`, and its columns."""


class DataError(ValueError):
    """Data that cannot be used; where it comes from a file, the message names file, row and column."""


def read_structs(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Each row of a file as a struct, with its place; see `read_rows` and `as_struct`.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    return ((where, as_struct(row, kind, where)) for where, row in read_rows(path))


def as_struct(row: Row, kind: type[T], where: str) -> T:
    """A row as a struct. Other columns are ignored, and optional ones without a value: CSV cannot leave out a column.

    Raises:
        DataError: a column is missing, of another type, or not UTF-8.
    """
    required = _required(kind)
    given = {name: row[name] for name in required if name in row and (required[name] or row[name] not in (None, ""))}
    for name, value in given.items():
        if isinstance(value, str):
            require_utf8(value, name, where)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {error}") from None


def require_utf8(text: str, column: str, where: str) -> None:
    """Raise `DataError` for half a surrogate pair, which JSON can escape and nothing else can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: column {column!r}: not UTF-8: {error.reason}") from None


def decoded(content: str | bytes) -> Any:
    """JSON; a `ValueError` for whatever is wrong with it, an object that names a key twice included."""
    try:
        return json.loads(content, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"an object names {repeated!r} more than once")
    return made


def _csv_rows(path: Path) -> Rows:
    reader = csv.DictReader(_lines(path), strict=True)
    number = 1
    try:
        header = Counter(name for name in reader.fieldnames or () if name)
        if repeated := [name for name, times in header.items() if times > 1]:
            raise DataError(f"{path}:{reader.line_num}: the header names column {repeated[0]!r} more than once")
        for row in reader:
            number = reader.line_num
            if None in row:
                raise DataError(f"{path}:{number}: more fields than the header has; quote texts that hold commas")
            yield f"{path}:{number}", row
    except csv.Error as error:
        raise DataError(f"{path}:{number + 1}: not CSV: {error}") from None


def _json_rows(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = decoded(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield f"{path}:{number}", row


FORMATS: Mapping[str, Callable[[Path], Rows]] = {".csv": _csv_rows, ".jsonl": _json_rows}
"""How a file is read, by the end of its name."""


def reader_of(path: Path, formats: Mapping[str, Callable[[Path], Rows]] = FORMATS) -> Callable[[Path], Rows]:
    """What reads a file of that name.

    Raises:
        DataError: its name ends otherwise than any format.
    """
    read = formats.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(formats)}")
    return read


def read_rows(path: Path, formats: Mapping[str, Callable[[Path], Rows]] = FORMATS) -> Rows:
    """The rows of a file: of CSV with a header, or of JSON lines without the blank ones.

    Raises:
        DataError: there is no such file, its name ends otherwise, it holds no row, or one cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    empty = True
    for row in reader_of(path, formats)(path):
        empty = False
        yield row
    if empty:
        raise DataError(f"{path}: the file holds no rows")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{_first_not_utf8(path)}: not UTF-8: {error.reason}") from None


def _first_not_utf8(path: Path) -> int:
    """The number of the first such line; the decoder reads ahead and cannot tell."""
    with path.open("rb") as file:
        return next(number for number, line in enumerate(file, 1) if not _is_utf8(line))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@cache
def _required(kind: type[msgspec.Struct]) -> Mapping[str, bool]:
    """Whether a struct must have each of its fields."""
    return {field.name: field.required for field in msgspec.structs.fields(kind)}
