"""Results of finished training stages, on disk, so that a run that was stopped goes on."""

import fcntl
import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from tqdm import tqdm

from features.drafts import replacing
from features.preprocess import wordless
from models.data import Example, Split, digest
from models.networks import encoder_folder
from models.recipe import Recipe

T = TypeVar("T")
USES = {
    "teachers": ("encoder", "teachers", "teacher_epochs", "smoothing", "balance", "max_tokens", "seed"),
    "transfer": ("noise", "mixtures"),
    "student": ("student", "student_layers", "pooling", "student_epochs", "vocabulary"),
    "pruned": ("heads", "neurons", "recovery_epochs"),
    "aware": ("aware_epochs",),
}
"""Fields of the recipe that each stage uses, besides those that the stages before it use."""
LIBRARIES = ("torch", "transformers", "tokenizers")
"""Finished stages hold objects of these."""
CODE = Path(__file__).resolve().parent.parent
SOURCES = {
    "teachers": (
        "features/preprocess.py", "models/compress.py", "models/networks.py", "models/optimise.py",
        "models/teacher.py", "models/augment.py", "models/targets.py",
    ),
    "transfer": ("models/transfer.py",),
    "student": ("models/distil.py", "models/vocabulary.py", "models/prune.py", "models/blocks.py"),
    "pruned": (),
    "aware": ("models/quantization_aware.py", "models/export.py"),
}  # fmt: skip
"""The code that makes each stage, besides that of those before it; the last line also writes a run's ONNX files."""


class Stages:
    """Results of finished stages, keyed by the rows, the libraries, the code and the part of the recipe that made them.

    So a run that differs from another in its student alone takes over the other's teachers. Encoders in local folders
    count by the content of their files, wherever they lie; preprocessing by its files and by what it answers.

    Args:
        work: folder for all runs; results lie there, and what a run exports in `folder`, the run's own.
        unlabelled: texts for the teachers to label.
        code: folder under which the `SOURCES` lie.
    """

    def __init__(
        self, work: Path, parts: Split, recipe: Recipe, unlabelled: Sequence[str] = (), code: Path = CODE
    ) -> None:
        self._work = work
        self._given = [digest(rows) for rows in (parts.train, parts.validation, parts.test)]
        self._given += [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
        self._given.append(_preprocessing())
        self._code = {name: [_digest(code / source) for source in sources] for name, sources in SOURCES.items()}
        self._told = asdict(recipe) | dict(zip(("encoder", "student"), map(_content, recipe.encoders), strict=False))
        self._unlabelled = [digest([Example(text, "") for text in unlabelled])] if unlabelled else []
        self._seconds: dict[str, float] = {}
        self.folder = work / _hash([*self._given, str(self._code), str(self._told), *self._unlabelled])
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the result of a stage lies, once there is one."""
        before = list(USES)[: list(USES).index(name) + 1]
        told = [f"{field}={self._told[field]!r}" for stage in before for field in USES[stage]]
        made_by = [source for stage in before for source in self._code[stage]]
        unlabelled = self._unlabelled if "transfer" in before else []
        return self._work / f"{name}-{_hash([*self._given, *made_by, *told, *unlabelled])}.pt"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs with the same options out of the run's folder meanwhile.

        Raises:
            BlockingIOError: such a run is under way.
        """
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"another run with these options works in {self.folder}: wait for it, or give another --work"
                ) from None
            yield

    def run(self, name: str, make: Callable[[], T]) -> T:
        """The result of a stage, made unless this run or another has made it and left it intact.

        Args:
            name: a key of `USES`; `make` uses no more of the recipe than that and the keys before it name.

        Raises:
            OSError: the result cannot be stored, since the disk is full.
        """
        path = self.path(name)
        stored = _stored(name, path) if path.is_file() else None
        if stored is None:
            begun = time.monotonic()
            stored = {"made": make(), "seconds": round(time.monotonic() - begun, 1)}
            _store(stored, path)
        self._seconds[name] = stored["seconds"]
        return cast(T, stored["made"])

    def seconds(self) -> dict[str, float]:
        """How long each stage of this run took when it was made."""
        return dict(self._seconds)


def _store(stored: dict[str, Any], path: Path) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        try:
            torch.save(stored, file)
        except RuntimeError as error:  # torch's own, about places in its archive, follows upon that of the disk
            if isinstance(error.__context__, OSError):
                raise OSError(f"{path}: {error.__context__}") from None
            raise


def _stored(name: str, path: Path) -> dict[str, Any] | None:
    """What a stage left in its file; None where that is damaged."""
    try:
        loaded = torch.load(path, weights_only=False)
        stored = {key: loaded[key] for key in ("made", "seconds")}
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:  # reading damaged bytes as pickled objects fails in any way
        problem = f"{path} is damaged ({type(error).__name__})"
        tqdm.write(f"warning: {problem}: the stage {name} is made again", file=sys.stderr)
        return None
    tqdm.write(f"{name}: made before, taken from {path}", file=sys.stderr)
    return stored


def _preprocessing() -> str:
    """The fingerprint of the preprocessing function around a tokenizer that is always the same."""
    return wordless().fingerprint


def _content(encoder: str) -> str:
    """A digest of the files of a local encoder; the id of one on the hub."""
    folder = Path(encoder_folder(encoder))
    if not folder.is_dir():
        return encoder
    return _hash([f"{path.name} {_digest(path)}" for path in sorted(folder.glob("[!.]*")) if path.is_file()])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
