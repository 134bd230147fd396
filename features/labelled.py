"""Labelled messages in files: chats with who wrote them and when, and training data with or without context."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from features.schema import Identifier

T = TypeVar("T", bound=msgspec.Struct)
OUT_OF_SCOPE = "out_of_scope"
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
"""Chats between these have windows that dates can express."""


class LabelledError(ValueError):
    """A file that cannot be read; the message names the file, the row and the column."""


class Chat(msgspec.Struct, frozen=True):
    """A message with the product that it was about. Other columns are ignored."""

    text: str
    product: Annotated[str, msgspec.Meta(min_length=1)]
    user_id: Identifier
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """When it was sent, RFC 3339 with an offset."""
    request_id: Identifier | None = None


class Labelled(msgspec.Struct, frozen=True):
    """A row of training data; in CSV, screens are a JSON list or names joined by `|`, and usage is JSON."""

    text: str
    product: str | None = None
    category: str | None = None
    recent_screens: list[str] | str | None = None
    product_usage_60d: dict[str, int] | str | None = None

    @property
    def label(self) -> str:
        """The product, or the category; empty where there is neither."""
        label = self.product or self.category or ""
        return OUT_OF_SCOPE if label == "oos" else label

    @property
    def screens(self) -> list[str]:
        value = self.recent_screens or []
        if isinstance(value, list):
            return value
        return msgspec.json.decode(value, type=list[str]) if value.lstrip().startswith("[") else value.split("|")

    @property
    def usage(self) -> dict[str, int]:
        value = self.product_usage_60d or {}
        return value if isinstance(value, dict) else msgspec.json.decode(value, type=dict[str, int])


def read_chats(path: Path) -> list[Chat]:
    """Read chats, JSON lines or CSV with a header.

    Raises:
        LabelledError: naming the file, the row and what is wrong with it.
    """
    chats = []
    for where, chat in read_rows(path, Chat):
        if not _FIRST <= chat.at <= _LAST:
            raise LabelledError(f"{where}: at: {chat.at.isoformat()} is not between {_FIRST.date()} and {_LAST.date()}")
        chats.append(chat)
    return chats


def read_labelled(path: Path) -> list[Labelled]:
    """Read training data, JSON lines or CSV with a header, or every JSONL file of a folder.

    Raises:
        LabelledError: naming the file, the row and what is wrong with it.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise LabelledError(f"{path}: the folder holds no .jsonl file")
    return [_checked(where, row) for file in files for where, row in read_rows(file, Labelled)]


def read_rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Each row as a struct, with its place `file:line`; at least one.

    Raises:
        LabelledError: there is no such file or no row, or a row does not fit; naming its place.
    """
    if not path.is_file():
        raise LabelledError(f"{path}: no such file")
    empty = True
    for number, row in _csv_rows(path) if path.suffix == ".csv" else _json_rows(path):
        where, empty = f"{path}:{number}", False
        try:
            yield where, msgspec.convert(row, kind)
        except msgspec.ValidationError as error:
            raise LabelledError(f"{where}: {error}") from None
    if empty:
        raise LabelledError(f"{path}: the file holds no rows")


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.isspace() or not content:
                continue
            try:
                yield number, msgspec.json.decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise LabelledError(f"{path}:{number}: not JSON: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    number = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                number = reader.line_num
                if None in row:
                    raise LabelledError(f"{path}:{number}: more fields than the header has")
                yield number, {name: value for name, value in row.items() if value or name == "text"}
        except UnicodeDecodeError as error:
            raise LabelledError(f"{path}:{number + 1}: not UTF-8: {error.reason}") from None
        except csv.Error as error:
            raise LabelledError(f"{path}:{number + 1}: not CSV: {error}") from None


def _checked(where: str, row: Labelled) -> Labelled:
    try:
        screens, usage = row.screens, row.usage
    except msgspec.DecodeError as error:
        raise LabelledError(f"{where}: recent_screens or product_usage_60d: {error}") from None
    if not row.label:
        raise LabelledError(f"{where}: no product and no category")
    return Labelled(row.text, row.label, None, screens, usage)
