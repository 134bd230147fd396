"""Reads columns of Parquet files that others wrote; every defect becomes an error that names the file.

Arrow reads them, not polars: in polars a damaged byte can end the process. So it can in Arrow, where Python asks for
the metadata of a single column; reading the column raises an error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_TEXTS = (pa.string(), pa.large_string())
_NO_DICTIONARIES = "Not yet implemented"
"""What Arrow says of texts in the delta encodings of Parquet 2, which it cannot read as dictionaries."""
_UNREADABLE = (OSError, UnicodeError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException)


class LogError(ValueError):
    """A log that cannot be read; the message names the file and the column."""


class FileGoneError(LogError):
    """A file that is there no more: the service deletes those of its served log that are as old as `keep_days`."""


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what Arrow and polars raise for a damaged file into a `LogError` that names it."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        kind = FileGoneError if isinstance(error, FileNotFoundError) else LogError
        raise kind(f"{file}: not a readable Parquet file: {reason}") from None


def read_columns(file: Path, needed: Sequence[str], optional: Sequence[str] = (), few: Sequence[str] = ()) -> pa.Table:
    """Columns of a Parquet file. Texts may be invalid UTF-8, which must not reach polars: see `as_utf8`.

    Args:
        few: columns with few distinct texts, which are read as dictionaries: faster.

    Raises:
        LogError: a needed column is missing.
    """
    facts = pq.read_metadata(file)
    schema = facts.schema.to_arrow_schema()
    missing = [column for column in needed if column not in schema.names]
    if missing:
        raise LogError(f"{file}: column {missing[0]!r} is missing; the file has {', '.join(schema.names)}")
    columns = [*needed, *(column for column in optional if column in schema.names)]
    texts = {field.name for field in schema if field.type in _TEXTS}
    numbered = [name for name in few if name in texts]

    def read(as_dictionaries: list[str]) -> pa.Table:
        with pq.ParquetFile(file, metadata=facts, read_dictionary=as_dictionaries, pre_buffer=False) as parquet:
            return parquet.read(columns=columns, use_threads=False)

    try:
        table = read(numbered)
    except OSError as error:
        if _NO_DICTIONARIES not in str(error):
            raise
        table = read([])
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:
                pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary)  # checks the bounds of the indices
    return table


def as_utf8(table: pa.Table) -> pa.Table:
    """The table with invalid UTF-8 replaced by empty texts: Arrow has not checked it, and polars would not."""
    if all(map(_is_ascii, table.columns)):  # a tenth of the cost of a validation
        return table
    try:
        table.validate(full=True)
        return table
    except pa.ArrowInvalid:
        columns = zip(table.column_names, table.columns, strict=True)
        return pa.table({name: _decoded(column) if _is_text(column.type) else column for name, column in columns})


def _is_ascii(column: pa.ChunkedArray) -> bool:
    """Whether a column holds no other texts than ASCII; True for columns of other types."""
    kind, chunks = column.type, column.chunks
    if pa.types.is_dictionary(kind):
        kind, chunks = kind.value_type, [chunk.dictionary for chunk in chunks]
    if kind not in _TEXTS:
        return not _is_text(kind)
    contents = (chunk.buffers()[2] for chunk in chunks)
    return all(np.frombuffer(content, np.uint8).max() < 128 for content in contents if content)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    values = column.cast(pa.large_binary()).to_pylist()
    return pa.array([value if value is None else _utf8(value) for value in values], pa.large_string())


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""
