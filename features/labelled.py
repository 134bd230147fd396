"""Labelled messages in files: training data with or without context, and chats, which have a user and a time.

Training, `training-set`, `drift` and `simulate` all read them with these rules.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from features.rows import FORMATS, DataError, Row, Rows, as_struct, decoded, read_rows, require_utf8
from features.schema import Identifier

CORPUS = Path(__file__).resolve().parent.parent / "models" / "corpus"
"""The project's own labelled messages. Hold-outs are in subfolders, which are not read."""
OUT_OF_SCOPE = "out_of_scope"
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
"""The range of a chat's time, so that windows around it can be expressed as dates."""
_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
"""JSON's names of the types that are not strings."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled message. `product` is `OUT_OF_SCOPE` if it is about none."""

    text: str
    product: str
    recent_screens: tuple[str, ...] = ()
    """Oldest first."""
    product_usage_60d: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_context(self) -> bool:
        return bool(self.recent_screens) or any(uses >= 1 for uses in self.product_usage_60d.values())


class Chat(msgspec.Struct, frozen=True):
    """A message with the product that it was about, or `OUT_OF_SCOPE`."""

    text: str
    product: str
    user_id: Identifier
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """When it was sent, RFC 3339 with an offset."""
    request_id: Identifier | None = None


def read_chats(path: Path) -> list[Chat]:
    """Read chats, JSON lines or CSV with a header; text and label as `example_of` has them.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    chats = []
    for where, row in read_rows(path):
        message = {"text": _text(row, where), "product": _label(row, where)}
        chat = as_struct({**row, **message}, Chat, where)
        if not _FIRST <= chat.at <= _LAST:
            raise DataError(f"{where}: at: {chat.at.isoformat()} is not between {_FIRST.date()} and {_LAST.date()}")
        chats.append(chat)
    return chats


def read_labelled(
    path: Path, product: str | None = None, formats: Mapping[str, Callable[[Path], Rows]] = FORMATS
) -> Iterator[tuple[str, Example]]:
    """Training data and its places (`file:line`), from a file or all JSONL files of a folder; see `example_of`.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: the folder holds no .jsonl file")
    return ((where, example_of(row, where, product)) for file in files for where, row in read_rows(file, formats))


def example_of(row: Row, where: str, product: str | None = None) -> Example:
    """A row of training data. Other columns are ignored.

    Args:
        row: `text`, and `product` or `category`; optionally `recent_screens` (a list, or in CSV a JSON list or names
            joined by `|`) and `product_usage_60d` (an object, in CSV as JSON). Labels are stripped of white space, and
            `oos` is read as `OUT_OF_SCOPE`.
        where: the row's place, for error messages.
        product: the label to use instead of the row's.

    Raises:
        DataError: naming the place, the column and what is wrong with it.
    """
    text = _text(row, where)
    product = _label(row, where) if product is None else _in_scope(product)
    column = "recent_screens"
    try:
        screens = _screens(row.get(column))
        column = "product_usage_60d"
        return Example(text, product, screens, _usage(row.get(column)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: column {column!r}: {error}") from None


def _text(row: Row, where: str) -> str:
    if row.get("text") is None:
        raise DataError(f"{where}: column 'text' is missing; {_columns(row)}")
    return _string(row, "text", where)


def _label(row: Row, where: str) -> str:
    label = _string(row, "category" if row.get("product") in (None, "") else "product", where).strip()
    if not label:
        raise DataError(f"{where}: no 'product' or 'category'; {_columns(row)}")
    return _in_scope(label)


def _in_scope(label: str) -> str:
    return OUT_OF_SCOPE if label == "oos" else label


def _columns(row: Row) -> str:
    return f"columns with a value: {sorted(str(name) for name, value in row.items() if value not in (None, ''))}"


def _string(row: Row, column: str, where: str) -> str:
    """The string in a column, empty if it has no value."""
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} is {_KINDS[type(value)]}, expected a string")
    require_utf8(value, column, where)
    return value


def _screens(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = decoded(value) if value.lstrip().startswith("[") else value.split("|") if value else []
    if not isinstance(value or [], list):
        raise ValueError(f"expected a list, got {_KINDS.get(type(value), 'a string')}")
    screens = tuple(value or ())
    for screen in screens:
        if not isinstance(screen, str):
            raise ValueError(f"expected names, got {_KINDS[type(screen)]}")
        screen.encode()
    return screens


def _usage(value: Any) -> dict[str, int]:
    if isinstance(value, str):
        value = decoded(value) if value else {}
    if not isinstance(value or {}, dict):
        raise ValueError(f"expected an object, got {_KINDS.get(type(value), 'a string')}")
    usage = {}
    for product, uses in (value or {}).items():
        product.encode()
        count = int(uses)
        if isinstance(uses, bool) or count < 0 or (isinstance(uses, float) and count != uses):
            raise ValueError(f"{product}: expected a count, got {json.dumps(uses)}")
        if count:
            usage[product] = count
    return usage
