"""Daily partial aggregates: one Arrow file a day, with a record batch for each bucket of users.

A task for one bucket reads only that bucket's batch of each day, so no shuffle is needed. A partial records the raw
files that it was built from, and is built again when they change.
"""

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.drafts import is_abandoned, replacing
from features.event_log import read_day
from features.pair_sums import PairSums, pair_sums
from features.parquet_columns import LogError
from features.shards import shards

BUCKETS = 16
FORMAT = f"7, polars {pl.__version__}"
"""Part of a partial's `source`. Its digest uses polars' hash function, which may change between versions."""
SCHEMA = pa.schema({"user_id": pa.string(), "product": pa.dictionary(pa.int32(), pa.string()), "uses": pa.uint32()})
_FACTS = b"switchboard"
_CHECK = b"crc32"


@dataclass(frozen=True, slots=True)
class Partial:
    """The metadata of one day's partial."""

    day: str
    source: str
    """Identity of the day's raw files and of the format; see `source_of`."""
    rows: int
    malformed: int
    duplicates: int
    digest: str
    """Of the aggregated rows, independent of their order."""


def within(made: Iterable[Partial], first: date, last: date) -> list[Partial]:
    """The partials of the days from `first` to `last`, both included."""
    return [partial for partial in made if str(first) <= partial.day <= str(last)]


def buckets(users: pl.Series) -> np.ndarray:
    """The bucket of each user: uint16 [users]. A bucket consists of whole shards."""
    return (shards(users) % BUCKETS).astype(np.uint16)  # numpy sorts uint16 three times as fast as wider integers


def source_of(files: Sequence[Path]) -> str:
    """Identity of raw files by name, size and modification time."""
    facts = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, BUCKETS, facts]).encode()).hexdigest()[:16]


_KEPT = re.compile(r"\.?(?P<day>day=\d{4}-\d\d-\d\d)\.(arrow|parquet)(?P<draft>\.[0-9a-f]{32})?")
"""Names of partials, of files of malformed rows, and of their drafts."""


class Partials:
    """The partials in one folder, which must have the same path on every worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, day: date) -> Path:
        return self.folder / f"day={day}.arrow"

    def quarantine(self, day: date) -> Path:
        """The file of a day's malformed rows and their reasons."""
        return self.folder / "quarantine" / f"day={day}.parquet"

    def known(self, day: date, files: Sequence[Path]) -> Partial | None:
        """The partial of a day, if it was made from these files."""
        try:
            with pa.ipc.open_file(self.path(day)) as reader:
                partial = _facts(reader)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None
        return partial if partial.source == source_of(files) else None

    def build(self, day: date, files: Sequence[Path]) -> Partial:
        """Aggregate a day's raw events and write the partial, atomically.

        Raises:
            LogError: a file is damaged, or a column is missing or has a wrong type.
            OSError: the folder cannot be written.
        """
        source = source_of(files)
        events = read_day(files, day, "product")
        uses, starts = _by_bucket(_counted(events.valid))
        rows, malformed = events.valid.height, events.rejected.height
        partial = Partial(str(day), source, rows, malformed, events.duplicates, _digest(uses))
        self._set_aside(day, events.rejected)
        self._write(day, uses, starts, partial)
        return partial

    def batch(self, number: int, day: str, content: str) -> pa.RecordBatch:
        """One bucket of a day: user_id, product, uses.

        Args:
            content: the partial's digest.

        Raises:
            LogError: the partial was replaced by one with other content, or is damaged.
        """
        path = self.path(date.fromisoformat(day))
        try:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                if _facts(reader).digest == content:
                    rows, metadata = reader.get_batch_with_custom_metadata(number)
                    rows.validate()
                    if rows.schema != SCHEMA or metadata[_CHECK].decode() != checksum(number, rows):
                        raise ValueError("not what was written")
                    return rows.replace_schema_metadata(None)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise LogError(f"{path}: damaged ({error}): delete it and run again") from None
        raise LogError(f"{path}: was replaced, since the day's events changed meanwhile: run again")

    def read(self, number: int, made: Sequence[Partial]) -> pl.DataFrame:
        """One bucket of some days: user_id, product (categorical), uses, day.

        Raises:
            LogError: a partial was replaced by one with other content, or is damaged.
        """
        batches = [self.batch(number, partial.day, partial.digest) for partial in made]
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches, SCHEMA)))
        days = np.array([partial.day for partial in made], "datetime64[D]")
        rows = [batch.num_rows for batch in batches]
        return frame.with_columns(pl.Series("day", np.repeat(days, rows), pl.Date))

    def forget(self, log: Path, current: Sequence[Partial]) -> int:
        """Delete partials, malformed rows and drafts of killed writers, of days that the log no longer has.

        A file that cannot be deleted is named on standard error; the next run tries again.

        Args:
            current: the partials of the run just made. They stay even if the log has lost their days meanwhile: the
                next run may subtract them from this one's sums.

        Returns:
            The number of days of which something was deleted.
        """
        needed, gone = {f"day={partial.day}" for partial in current}, set()
        for file in [*self.folder.glob("*day=*"), *self.folder.glob("quarantine/*day=*")]:
            kept = _KEPT.fullmatch(file.name)
            if kept is None or kept["day"] in needed:
                continue
            try:
                if not (log / kept["day"]).exists() and (kept["draft"] is None or is_abandoned(file)):
                    file.unlink()
                    gone.add(kept["day"])
            except OSError as error:
                print(f"notice: {file} is not deleted: {error.strerror}", file=sys.stderr)
        return len(gone)

    def _set_aside(self, day: date, rejected: pl.DataFrame) -> None:
        target = self.quarantine(day)
        if rejected.is_empty():
            target.unlink(missing_ok=True)
            return
        with keeping(target) as draft:
            rejected.write_parquet(draft)

    def _write(self, day: date, uses: PairSums, starts: Sequence[int], partial: Partial) -> None:
        """Write a record batch for each bucket; `starts` has the index of each bucket's first pair."""
        products = pa.DictionaryArray.from_arrays(uses.product.astype(np.int32), uses.products.cast(pa.string()))
        columns = [uses.users.take(pa.array(uses.user)).cast(pa.string()), products, uses.uses.astype(np.uint32)]
        rows = pa.record_batch(columns, SCHEMA)
        schema = SCHEMA.with_metadata({_FACTS: json.dumps(asdict(partial))})
        with keeping(self.path(day)) as draft, pa.ipc.new_file(draft, schema) as writer:
            for number, (start, end) in enumerate(pairwise([*starts, rows.num_rows])):
                bucket_rows = rows.slice(start, end - start)
                writer.write_batch(bucket_rows, {_CHECK: checksum(number, bucket_rows)})


@contextmanager
def keeping(target: Path) -> Iterator[Path]:
    """`replacing`, with an error message for files of the folder of partials.

    Raises:
        OSError: the draft cannot be written; the message names the target and what to do.
    """
    try:
        with replacing(target) as draft:
            yield draft
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition("\n")[0].removeprefix(f"{target}: ")
        raise OSError(f"{target}: {reason}: give another folder with --partials, or make room") from None


def digest(frames: Iterable[pl.DataFrame]) -> str:
    """A digest of the rows of all frames, independent of their order."""
    hashes = [np.add.reduce(frame.hash_rows(0).to_numpy(), dtype=np.uint64) for frame in frames]
    return f"{np.add.reduce(hashes, dtype=np.uint64):016x}"


def checksum(number: int, rows: pa.RecordBatch) -> str:
    """CRC-32 of a bucket's number and rows. Arrow detects little damage, and damaged rows can crash the process."""
    product, value = rows["product"], number
    for texts in (rows["user_id"], product.dictionary):
        value += texts.null_count
        _, ends, content = texts.buffers()
        if len(texts):
            places = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
            value = zlib.crc32(memoryview(content)[places[0] : places[-1]], value)
            value = zlib.crc32((places - places[0]).tobytes(), value)
    for numbers in (product.indices, rows["uses"]):
        value = zlib.crc32(numbers.to_numpy().tobytes(), value)
    return str(value)


def _counted(events: pl.DataFrame) -> PairSums:
    return pair_sums(events["user_id"].to_arrow().dictionary_encode(), events["product"].to_arrow())


def _by_bucket(uses: PairSums) -> tuple[PairSums, list[int]]:
    """The pairs sorted by bucket, and the index of each bucket's first pair."""
    of_pair = buckets(pl.Series(values=uses.users, dtype=pl.String))[uses.user]
    order = np.argsort(of_pair, kind="stable")
    starts = np.searchsorted(of_pair[order], np.arange(BUCKETS)).tolist()
    return replace(uses, user=uses.user[order], product=uses.product[order], uses=uses.uses[order]), starts


def _digest(uses: PairSums) -> str:
    """`digest` of the pairs, with the hashes of the names in their place, which is faster."""
    users, products = (pl.Series(values=names, dtype=pl.String).hash(0) for names in (uses.users, uses.products))
    return digest([pl.DataFrame({"user": users[uses.user], "product": products[uses.product], "uses": uses.uses})])


def _facts(reader: pa.ipc.RecordBatchFileReader) -> Partial:
    return Partial(**json.loads(reader.schema.metadata[_FACTS]))
