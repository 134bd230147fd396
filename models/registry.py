"""A folder of bundles, and names such as `production` that point at one and are moved atomically."""

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from features.bundled import MANIFEST
from features.drafts import replacing
from models.bundle import Bundle, BundleError, Manifest, read_manifest
from models.data import Example
from models.gates import TOLERANCE, against
from models.pointers import NAME, NOWHERE, Pointer, may_be_pointer, parse_pointer

DEFAULT = Path(__file__).resolve().parent.parent / "bundles"
VERSION = re.compile(r"[0-9a-f]{12}")


class Registry:
    """Bundles under one folder.

    Attributes:
        folder: where the bundles lie on this machine.
        where: the same in words; of a registry at an URL, that.
    """

    def __init__(self, folder: Path = DEFAULT) -> None:
        self.folder = folder
        self.where = str(folder)

    @staticmethod
    def at(place: str) -> "Registry":
        """The registry in a folder, or at an URL such as `s3://bucket/bundles`, see `models.remote_registry`.

        Raises:
            BundleError: nothing here speaks the URL's protocol.
        """
        if "://" not in place:
            return Registry(Path(place))
        from models.remote_registry import remote_registry  # here, since fsspec is for URLs only

        return remote_registry(place)

    def resolve(self, reference: str) -> Path:
        """The folder of a bundle on this machine, given a path, a version or a name.

        Raises:
            BundleError: listing every place that was tried.
        """
        if (Path(reference) / MANIFEST).is_file():
            return Path(reference)
        if self._read(f"{reference}/{MANIFEST}") is not None:
            return self._pull(reference)
        if (content := self._read(f"{reference}.json")) is not None:
            return self._pull(str(parse_pointer(content, f"{self.where}/{reference}.json").version))
        tried = (reference, f"{self.where}/{reference}", f"{self.where}/{reference}.json")
        raise BundleError(f"no bundle {reference!r}: tried {', '.join(tried)}")

    def load(self, reference: str) -> Bundle:
        """Resolve and verify a bundle.

        Raises:
            BundleError: there is none, or it is not fit to be served.
        """
        return Bundle(self.resolve(reference))

    def is_there(self) -> bool:
        """Whether there is a registry at all, be it an empty one."""
        return self.folder.is_dir()

    def versions(self) -> list[str]:
        """The names of all bundles' folders, sorted."""
        return sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{MANIFEST}"))

    def manifest(self, version: str) -> Manifest:
        """What a bundle tells about itself, without a look at its parts.

        Raises:
            BundleError: there is no such bundle, or its manifest is damaged.
        """
        return read_manifest(self.folder / version)

    def names(self) -> dict[str, str]:
        """Each name and the version that it points at.

        Raises:
            BundleError: a name is damaged.
        """
        versions = {}
        for name, pointer in self.pointers().items():
            if isinstance(pointer, BundleError):
                raise pointer
            versions[name] = str(pointer.version)
        return versions

    def pointers(self) -> dict[str, Pointer | BundleError]:
        """Where each name points, or why it cannot be read; JSON files of other content are none of ours."""
        found: dict[str, Pointer | BundleError] = {}
        for file in self._json_files():
            where = f"{self.where}/{file}"
            try:
                content = self._read(file)
                if content is not None and may_be_pointer(content):
                    found[file.removesuffix(".json")] = parse_pointer(content, where)
            except BundleError as error:
                found[file.removesuffix(".json")] = error
            except OSError as error:
                found[file.removesuffix(".json")] = BundleError(f"{where}: {error.strerror or error}")
        return found

    def promote(
        self,
        reference: str,
        name: str = "production",
        *,
        tolerance: float = TOLERANCE,
        force: bool = False,
        examples: Sequence[Example] | None = None,
    ) -> str:
        """Point a name at a verified bundle of this registry that routes messages, no worse than the present one.

        Args:
            reference: path, version or name of the bundle.
            name: what points at it afterwards.
            tolerance: how much lower a figure may be, see `models.gates.compare`.
            force: promote a worse or idle bundle all the same; one that does not load is refused even so.
            examples: rows to measure the bundles on, instead of comparing the figures in their manifests.

        Returns:
            Its version.

        Raises:
            BundleError: the name or the bundle is not fit, or the bundle is worse; the message says in what.
        """
        self._require_name(name)
        bundle = self.load(reference)
        bundle.classifier()
        self._require_own(bundle)
        while True:
            present = self._pointer(name).version
            if not force and present != bundle.version:
                self._refuse_worse(bundle, name, present, tolerance, examples)
            if self._replace(name, present, bundle):
                return bundle.version

    def rollback(self, name: str = "production") -> str:
        """Point a name back at the version before, whatever its figures.

        Returns:
            That version.

        Raises:
            BundleError: there is no such name, nothing before its version, or what was before is gone or damaged; the
                name then stays as it is.
        """
        if self._read(f"{name}.json") is None:
            raise BundleError(f"no name {name!r} in {self.where}")
        with self._lock():
            history = self._pointer(name).history
            if not history:
                raise BundleError(f"{name!r} has no version before the present one")
            try:
                bundle = Bundle(self._pull(version := history[-1]))
                if bundle.version != version:
                    raise BundleError(f"{bundle.path}: holds version {bundle.version}: copy the bundle again")
            except BundleError as error:
                raise BundleError(
                    f"{name!r} cannot go back: {error}; point it at another bundle with "
                    f"promote VERSION --name {name} --force"
                ) from None
            self._write(f"{name}.json", Pointer(version=version, history=history[:-1]).encoded())
        return version

    def _require_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise BundleError(
                f"{name!r} is not a valid name: expected a lower-case letter, then at most 63 lower-case letters, "
                "digits, '-' and '_'"
            )
        if VERSION.fullmatch(name) or self._read(f"{name}/{MANIFEST}") is not None:
            raise BundleError(
                f"{name!r} is not a valid name: a bundle's folder has it, or a version may, and would be found instead"
            )

    def _require_own(self, bundle: Bundle) -> None:
        home = self.folder / bundle.version
        if bundle.path.resolve() != home.resolve():
            raise BundleError(
                f"{bundle.path} lies outside the registry {self.where} or is not named after its version: "
                f"copy it to {home}"
            )

    def _refuse_worse(
        self, bundle: Bundle, name: str, present: str | None, tolerance: float, examples: Sequence[Example] | None
    ) -> None:
        try:
            folder = self._pull(present) if present else None
        except BundleError:  # gone or damaged, so nothing to be worse than
            folder = None
        if reasons := against(bundle, folder, tolerance, examples):
            raise BundleError(
                f"{bundle.version} is not promoted, {name!r} stays {present or 'unset'}: {'; '.join(reasons)}; "
                f"promote it all the same with --force"
            )

    def _replace(self, name: str, present: str | None, bundle: Bundle) -> bool:
        """Point a name at a bundle, unless it no longer points at `present`; returns whether it now does."""
        self._keep(bundle)
        with self._lock():
            old = self._pointer(name)
            if old.version == bundle.version:
                return True
            if old.version != present:
                return False
            self._write(f"{name}.json", old.moved(bundle.version).encoded())
        return True

    def _pointer(self, name: str) -> Pointer:
        """Where a name points; one that is not there points nowhere."""
        content = self._read(f"{name}.json")
        return NOWHERE if content is None else parse_pointer(content, f"{self.where}/{name}.json")

    def _json_files(self) -> list[str]:
        """The JSON files beside the bundles."""
        return sorted(path.name for path in self.folder.glob("[!.]*.json"))

    def _read(self, file: str) -> bytes | None:
        """The content of a file of the registry; None if there is none."""
        try:
            return (self.folder / file).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _write(self, file: str, content: bytes) -> None:
        with replacing(self.folder / file) as draft:
            draft.write_bytes(content)

    def _pull(self, version: str) -> Path:
        """The folder of one of its bundles on this machine."""
        return self.folder / version

    def _keep(self, bundle: Bundle) -> None:
        """See to it that the registry holds a bundle to which a name is about to point."""

    def _lock(self) -> AbstractContextManager[None]:
        """Keep other promotions out."""
        return _locked(self.folder / ".lock")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
