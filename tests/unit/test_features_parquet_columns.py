"""Columns of damaged Parquet files: refused, or fit for what works on them."""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.parquet_columns import LogError, read_columns, readable


def test_no_index_lies_outside_its_dictionary(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"product": ["a", "b", "c"] * 40}), file, compression="none")
    content, column = file.read_bytes(), pq.read_metadata(file).row_group(0).column(0)
    first, end = column.data_page_offset, column.dictionary_page_offset + column.total_compressed_size
    refused = 0
    for place in range(first, end):
        file.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        chunks: list[pa.DictionaryArray] = []
        with suppress(LogError), readable(file):
            chunks = read_columns(file, ["product"], few=["product"])["product"].chunks
        refused += not chunks
        for chunk in chunks:
            assert all(index in range(len(chunk.dictionary)) for index in chunk.indices.drop_null().to_pylist()), place
    assert 0 < refused < end - first
