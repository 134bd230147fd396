"""Results of finished training stages, on disk, so that a run that was stopped goes on."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch

from features.drafts import replacing
from models.data import Example, digest
from models.recipe import Recipe

T = TypeVar("T")


class Stages:
    """Results of finished stages, kept in a folder by the data and recipe that made them."""

    def __init__(
        self,
        folder: Path,
        examples: Sequence[Example],
        recipe: Recipe,
        validation: Sequence[Example] = (),
        unlabelled: Sequence[str] = (),
    ) -> None:
        more = [digest(validation)] if validation else []
        more += [digest([Example(text, "") for text in unlabelled])] if unlabelled else []
        key = hashlib.sha256(" ".join([digest(examples), str(recipe), *more]).encode()).hexdigest()[:12]
        self.folder = folder / key
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, make: Callable[[], T]) -> T:
        """The result of a stage, from the folder if it is there."""
        path = self.folder / f"{name}.pt"
        if path.is_file():
            return cast(T, torch.load(path, weights_only=False))
        begun = time.monotonic()
        made = make()
        with replacing(path) as draft:
            torch.save(made, draft)
            spent = self.seconds() | {name: round(time.monotonic() - begun, 1)}
            (self.folder / "seconds.json").write_text(json.dumps(spent))
        return made

    def seconds(self) -> dict[str, float]:
        """How long each finished stage took."""
        path = self.folder / "seconds.json"
        return json.loads(path.read_text()) if path.is_file() else {}
