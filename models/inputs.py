"""All that a training run reads, and what the manifest says about where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.data import CORPUS, OUT_OF_SCOPE, TO_CHOOSE, Example, digest, load, load_validation


@dataclass(frozen=True, slots=True)
class Inputs:
    """Labelled messages and texts to train on."""

    examples: Sequence[Example]
    data: Path = CORPUS
    """Where the examples come from; the own corpus has splits and a hold-out of its own."""
    validation: Sequence[Example] = ()
    """Rows to choose epochs and calibrate by, instead of a share of the examples."""
    unlabelled: Sequence[str] = ()
    """More texts for the teachers to label."""
    files: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """By option: of each file that it named, its name as `file` and the digest of its rows as `sha256`."""


def read_inputs(
    data: Path,
    *,
    feedback: Sequence[Path] = (),
    out_of_scope: Path | None = None,
    validation_data: Path | None = None,
    unlabelled: Path | None = None,
) -> Inputs:
    """Read the files that the options of `python -m models train` name.

    Raises:
        DataError: naming the file, the row and what is wrong with it.
    """
    own, brought = load(data), load_validation(data)
    read = {
        "data": [(data, [*own, *brought])],
        "feedback": [(path, load(path)) for path in feedback],
        "out_of_scope": [(path, load(path, OUT_OF_SCOPE)) for path in [out_of_scope] if path],
        "validation_data": [(path, load(path, lists=TO_CHOOSE)) for path in [validation_data] if path],
        "unlabelled": [(path, load(path, OUT_OF_SCOPE)) for path in [unlabelled] if path],
    }
    rows = {option: [row for _, some in files for row in some] for option, files in read.items()}
    return Inputs(
        [*own, *rows["feedback"], *rows["out_of_scope"]],
        data,
        rows["validation_data"] or brought,
        [row.text for row in rows["unlabelled"]],
        {
            option: [{"file": path.name, "sha256": digest(some)} for path, some in files]
            for option, files in read.items()
            if files
        },
    )
