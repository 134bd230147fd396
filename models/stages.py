"""Results of finished training stages, on disk, so that a run that was stopped goes on."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from tqdm import tqdm

from features.drafts import replacing
from models.data import Example, digest
from models.recipe import Recipe

T = TypeVar("T")
USES = {
    "teachers": ("encoder", "teachers", "teacher_epochs", "smoothing", "balance", "max_tokens", "validation", "test",
                 "seed"),
    "transfer": ("noise", "mixtures"),
    "student": ("student", "student_layers", "student_epochs", "vocabulary"),
    "pruned": ("heads", "neurons", "recovery_epochs"),
    "aware": ("aware_epochs",),
}  # fmt: skip
"""What each stage takes from the recipe, besides what those before it take."""


class Stages:
    """Results of finished stages, kept by the data and by the part of the recipe that made them.

    So a run that differs from another in its student alone takes over the other's teachers.

    Args:
        work: folder for all runs; results lie there, and what a run exports in `folder`, the run's own.
    """

    def __init__(
        self,
        work: Path,
        examples: Sequence[Example],
        recipe: Recipe,
        validation: Sequence[Example] = (),
        unlabelled: Sequence[str] = (),
    ) -> None:
        self._work, self._recipe = work, recipe
        self._rows = [digest(examples)] + ([digest(validation)] if validation else [])
        self._unlabelled = [digest([Example(text, "") for text in unlabelled])] if unlabelled else []
        self._seconds: dict[str, float] = {}
        self.folder = work / _hash([*self._rows, str(recipe), *self._unlabelled])
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the result of a stage lies, once there is one."""
        before = list(USES)[: list(USES).index(name) + 1]
        told = [f"{field}={getattr(self._recipe, field)!r}" for stage in before for field in USES[stage]]
        unlabelled = self._unlabelled if "transfer" in before else []
        return self._work / f"{name}-{_hash([*self._rows, *told, *unlabelled])}.pt"

    def run(self, name: str, make: Callable[[], T]) -> T:
        """The result of a stage, made unless this run or another has made it.

        Args:
            name: a key of `USES`; `make` uses no more of the recipe than that and the keys before it name.
        """
        path = self.path(name)
        if path.is_file():
            tqdm.write(f"{name}: made before, taken from {path}", file=sys.stderr)
            stored = torch.load(path, weights_only=False)
        else:
            begun = time.monotonic()
            stored = {"made": make(), "seconds": round(time.monotonic() - begun, 1)}
            with replacing(path) as draft:
                torch.save(stored, draft)
        self._seconds[name] = stored["seconds"]
        return cast(T, stored["made"])

    def seconds(self) -> dict[str, float]:
        """How long each stage of this run took when it was made."""
        return dict(self._seconds)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
