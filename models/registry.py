"""A folder of bundles, and names such as `production` that point at one.

A name is a small JSON file beside the bundles: `{"version": …, "history": […]}`, replaced atomically.
"""

import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ValidationError

from features.drafts import replacing
from models.bundle import Bundle, BundleError
from models.data import Example
from models.gates import TOLERANCE, against

DEFAULT = Path(__file__).resolve().parent.parent / "bundles"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_HISTORY = 20


class Pointer(BaseModel):
    """Where a name points, and where it pointed before, oldest first."""

    version: str | None
    history: tuple[str, ...]


class Registry:
    """Bundles under one folder."""

    def __init__(self, folder: Path = DEFAULT) -> None:
        self.folder = folder

    @classmethod
    def at(cls, folder: str) -> Self:
        """The registry in a folder given as text."""
        return cls(Path(folder))

    def resolve(self, reference: str) -> Path:
        """The folder of a bundle, given a path, a version or a name.

        Raises:
            BundleError: listing every place that was tried.
        """
        tried = [Path(reference), self.folder / reference]
        for candidate in tried:
            if (candidate / "manifest.json").is_file():
                return candidate
        pointer = self.folder / f"{reference}.json"
        if pointer.is_file():
            return self.folder / str(_read(pointer).version)
        raise BundleError(f"no bundle {reference!r}: tried " + ", ".join(str(p) for p in (*tried, pointer)))

    def load(self, reference: str) -> Bundle:
        """Resolve and verify a bundle."""
        return Bundle(self.resolve(reference))

    def folders(self) -> list[Path]:
        """The folders of all bundles, sorted by version."""
        return [path.parent for path in sorted(self.folder.glob("[!.]*/manifest.json"))]

    def names(self) -> dict[str, str]:
        """Each name and the version that it points at; JSON files of other content are none of ours."""
        files = [path for path in sorted(self.folder.glob("[!.]*.json")) if _may_be_name(path)]
        return {path.stem: str(_read(path).version) for path in files}

    def promote(
        self,
        reference: str,
        name: str = "production",
        *,
        tolerance: float = TOLERANCE,
        force: bool = False,
        examples: Sequence[Example] | None = None,
    ) -> str:
        """Point a name at a verified bundle of this registry that is not worse than the present one.

        Args:
            reference: path, version or name of the bundle.
            name: what points at it afterwards.
            tolerance: how much lower a figure may be.
            force: promote a worse bundle all the same; one that does not load is refused even so.
            examples: rows to measure both bundles on, instead of comparing the figures in their manifests.

        Returns:
            Its version.

        Raises:
            BundleError: the name or the bundle is not fit, or the bundle is worse; the message says in what.
        """
        if not _NAME.fullmatch(name):
            raise BundleError(f"{name!r} is no name: lower-case letters, digits, '-' and '_', at most 64")
        bundle = self.load(reference)
        bundle.classifier()
        home = self.folder / bundle.version
        if bundle.path.resolve() != home.resolve():
            raise BundleError(
                f"{bundle.path} lies outside the registry {self.folder} or is not named after its version: "
                f"copy it to {home}"
            )
        while True:
            present = self._pointer(name).version
            if not force and present not in (None, bundle.version):
                self._refuse_worse(bundle, name, self.folder / str(present), tolerance, examples)
            if self._replace(name, present, bundle.version):
                return bundle.version

    def _refuse_worse(
        self, bundle: Bundle, name: str, present: Path, tolerance: float, examples: Sequence[Example] | None
    ) -> None:
        reasons = against(bundle, present, tolerance, examples)
        if reasons:
            raise BundleError(
                f"{bundle.version} is not promoted, {name!r} stays {present.name}: {'; '.join(reasons)}; "
                f"promote it all the same with --force"
            )

    def _replace(self, name: str, present: str | None, version: str) -> bool:
        """Point a name at a version, unless it no longer points at `present`; returns whether it now does."""
        with self._lock():
            old = self._pointer(name)
            if old.version == version:
                return True
            if old.version != present:
                return False
            history = [v for v in [*old.history, present] if v][-_HISTORY:]
            self._write(name, version, history)
        return True

    def rollback(self, name: str = "production") -> str:
        """Point a name back at the version before; returns that version."""
        with self._lock():
            if not (self.folder / f"{name}.json").is_file():
                raise BundleError(f"no name {name!r} in {self.folder}")
            history = [*self._pointer(name).history]
            if not history:
                raise BundleError(f"{name!r} has no version before the present one")
            version = Bundle(self.folder / history[-1]).version
            self._write(name, version, history[:-1])
        return version

    def _pointer(self, name: str) -> Pointer:
        """Where a name points; one that is not there points nowhere."""
        path = self.folder / f"{name}.json"
        return _read(path) if path.is_file() else Pointer(version=None, history=())

    def _write(self, name: str, version: str, history: list[str]) -> None:
        with replacing(self.folder / f"{name}.json") as draft:
            draft.write_text(json.dumps({"version": version, "history": history}) + "\n")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _read(pointer: Path) -> Pointer:
    try:
        return Pointer.model_validate_json(pointer.read_bytes())
    except ValidationError as error:
        raise BundleError(
            f"{pointer}: damaged: {error.errors()[0]['msg']}; move it away and promote a version again"
        ) from None


def _may_be_name(path: Path) -> bool:
    """Whether a file is a pointer, be it a damaged one, and not some object of the user's, such as training data."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return True
    return not isinstance(content, dict) or bool(Pointer.model_fields.keys() & content.keys())
