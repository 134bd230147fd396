"""Reads rows of CSV and JSON lines with their places, so that an error names file, row and column."""

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
"""The place of each row, `file:line`, and its columns."""


class DataError(ValueError):
    """Invalid data; if it comes from a file, the message names file, row and column."""


def read_structs(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Each row of a file as a struct, with its place; see `read_rows` and `as_struct`.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    return ((where, as_struct(row, kind, where)) for where, row in read_rows(path))


def as_struct(row: Row, kind: type[T], where: str) -> T:
    """A row as a struct. Other columns are ignored, and so are empty optional ones, which CSV cannot leave out.

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
    """Raise `DataError` for a lone surrogate, which JSON can escape but UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: column {column!r}: not UTF-8: {error.reason}") from None


def decoded(content: str | bytes) -> Any:
    """Parse JSON; a `ValueError` for any error, including an object with a repeated key."""
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
"""The reader for each file name suffix."""


def reader_of(path: Path, formats: Mapping[str, Callable[[Path], Rows]] = FORMATS) -> Callable[[Path], Rows]:
    """The reader for a file's name.

    Raises:
        DataError: the name has none of the suffixes.
    """
    read = formats.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(formats)}")
    return read


def read_rows(path: Path, formats: Mapping[str, Callable[[Path], Rows]] = FORMATS) -> Rows:
    """The rows of a file: of CSV with a header, or of JSON lines without the blank ones.

    Raises:
        DataError: there is no such file, its name has another suffix, or it has no rows or an invalid one.
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
    """The number of the first line that is not UTF-8: the decoder reads ahead and does not know it."""
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
    """Whether each field of a struct is required."""
    return {field.name: field.required for field in msgspec.structs.fields(kind)}
