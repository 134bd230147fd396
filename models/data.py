"""Labelled chats: read them, group near-duplicates, split them the same way every time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.labelled import CORPUS as CORPUS
from features.labelled import OUT_OF_SCOPE as OUT_OF_SCOPE
from features.labelled import Example as Example
from features.labelled import example_of, read_labelled
from features.rows import FORMATS, Rows, decoded
from features.rows import DataError as DataError
from models.duplicates import clusters

Lists = tuple[str, str]
"""Names of two lists in CLINC150's layout: rows of products, rows about none."""
TO_TRAIN: tuple[Lists, ...] = (("train", "oos_train"),)
TO_CHOOSE: tuple[Lists, ...] = (("val", "oos_val"), *TO_TRAIN)
TO_JUDGE: tuple[Lists, ...] = (("test", "oos_test"), *TO_CHOOSE)
"""By what a CLINC150 file is read for, pairs of lists in order of preference: the first pair with any rows is read."""


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled messages by what they are for; `split` keeps those that are nearly equal in one part."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    calibration: list[Example] = field(default_factory=list)
    """Rows for temperature and thresholds, where the validation rows are harder or easier than what is served."""


def load_validation(path: Path) -> list[Example]:
    """The validation rows that a file brings along; only CLINC150's layout has any, others give none."""
    if path.suffix.lower() != ".json":
        return []
    return [example_of(row, where) for where, row in _clinc_rows(path, TO_CHOOSE[:1], required=False)]


def is_corpus(path: Path) -> bool:
    """Whether a path is that of the own corpus, which has splits and a hold-out of its own."""
    return path.resolve() == CORPUS.resolve()


def load(path: Path, product: str | None = None, lists: Sequence[Lists] = TO_TRAIN) -> list[Example]:
    """Read labelled chats from a CSV or JSONL file, or from every JSONL file of a folder.

    Args:
        path: CSV with a header, or JSON lines, with the columns that `features.labelled.example_of` tells of. A `.json`
            file has CLINC150's layout: lists of `[text, label]`.
        product: the label of every row, whatever the file says, such as that of an out-of-scope file.
        lists: pairs of lists in a `.json` file by preference: the first pair that holds rows is read.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    formats = {**FORMATS, ".json": lambda path: _clinc_rows(path, lists)}
    return [example for _, example in read_labelled(path, product, formats)]


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


def _clinc_rows(path: Path, lists: Sequence[Lists], required: bool = True) -> Rows:
    """Rows of a JSON file such as CLINC150's."""
    try:
        content = decoded(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    found = [pair for pair in lists if isinstance(content, dict) and any(name in content for name in pair)]
    if required and not found:
        raise DataError(f"{path}: expected an object with the lists {', or '.join(map(' and '.join, lists))}")
    filled = [pair for pair in found if any(content.get(name) for name in pair)]
    for part in next(iter(filled or found), ()):
        rows = content.get(part, [])
        if not isinstance(rows, list):
            raise DataError(f"{path}: {part}: expected a list, got {type(rows).__name__}")
        for number, row in enumerate(rows):
            where = f"{path}: {part}[{number}]"
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(value, str) for value in row)):
                raise DataError(f"{where}: expected [text, label]")
            yield where, {"text": row[0], "product": row[1]}
