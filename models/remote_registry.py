"""A registry at an URL that fsspec knows: bundles in an object store, and copies of those in use on this machine.

Versions are hashes of their content, so a copy is never out of date; the figures in its manifest are those of when it
was copied. A copy is written whole, checked as every bundle is, and made again where it was altered. Copies lie in
`$XDG_CACHE_HOME/switchboard/bundles` (`~/.cache`), and a version that lies there is loaded without a question to the
store.

Promoting a bundle of this machine puts it there, its manifest last, so that a broken upload leaves no bundle. The store
replaces one object at a time, a name as a whole. It has no lock: of two promotions of one name at once the last one
wins, whatever it was compared with. URLs of local files (`file://`) are folders, with all that `Registry` promises.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from features.bundled import MANIFEST
from models.bundle import PARTS, Bundle, BundleError, Manifest, intact_manifest, is_intact, parse_manifest, placing
from models.registry import VERSION, Registry


def remote_registry(url: str) -> Registry:
    """The registry at an URL; that of a folder if the URL is of local files.

    Raises:
        BundleError: fsspec does not know the URL's protocol, or lacks the package that speaks it.
    """
    try:
        files, root = fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise BundleError(f"registry {url}: {error}") from None
    if isinstance(files, LocalFileSystem):
        return Registry(Path(root))
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return RemoteRegistry(url, files, root, Path(cache, "switchboard", "bundles"))


class RemoteRegistry(Registry):
    """Bundles and names in a file system of fsspec's.

    Args:
        url: what messages call it.
        files: the file system, an `fsspec.AbstractFileSystem`.
        root: path of the registry in it.
        cache: folder for copies of its bundles; registries may share one.

    Raises:
        BundleError, OSError: from every method, the store cannot be reached or refuses.
    """

    def __init__(self, url: str, files: Any, root: str, cache: Path) -> None:
        super().__init__(cache)
        self.where = url.rstrip("/")
        self._files, self._root = files, root.rstrip("/")

    def resolve(self, reference: str) -> Path:
        """The folder of a bundle on this machine, copied there if it is not, given a path, a version or a name.

        Raises:
            BundleError: listing every place that was tried, or the bundle there is damaged.
        """
        if VERSION.fullmatch(reference) and is_intact(self.folder / reference):
            return self.folder / reference
        return super().resolve(reference)

    def is_there(self) -> bool:
        """Whether anything is there; object stores have no empty folders."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            self._files.ls(self._root, detail=False)
            return True
        return False

    def versions(self) -> list[str]:
        """The versions of all bundles there, sorted."""
        found = [name for name in self._listed() if VERSION.fullmatch(name)]
        return [version for version in found if self._read(f"{version}/{MANIFEST}") is not None]

    def manifest(self, version: str) -> Manifest:
        """What a bundle tells about itself, which is not copied for that.

        Raises:
            BundleError: there is no such bundle, or its manifest is damaged.
        """
        return parse_manifest(self._required(version, MANIFEST), f"{self.where}/{version}")

    def _require_own(self, bundle: Bundle) -> None:
        """Bundles of this machine may be promoted: `_keep` takes them in."""

    def _json_files(self) -> list[str]:
        return [name for name in self._listed() if name.endswith(".json") and not name.startswith(".")]

    def _listed(self) -> list[str]:
        with self._reached():
            self._files.invalidate_cache()
            try:
                return sorted({Path(path).name for path in self._files.ls(self._root, detail=False)})
            except FileNotFoundError:
                return []

    def _read(self, file: str) -> bytes | None:
        with self._reached():
            try:
                return bytes(self._files.cat_file(f"{self._root}/{file}"))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def _required(self, version: str, name: str) -> bytes:
        content = self._read(f"{version}/{name}")
        if content is None:
            raise BundleError(f"{self.where}/{version}: no {name}, so not a bundle")
        return content

    def _write(self, file: str, content: bytes) -> None:
        with self._reached():
            self._files.pipe_file(f"{self._root}/{file}", content)

    def _pull(self, version: str) -> Path:
        """The copy of a bundle, made if there is no intact one."""
        target, there = self.folder / version, f"{self.where}/{version}"
        if not VERSION.fullmatch(version):
            raise BundleError(f"{there}: not named after a version, so not a bundle")
        if is_intact(target):
            return target
        with placing(target) as staging:
            for name in (MANIFEST, *PARTS):
                (staging / name).write_bytes(self._required(version, name))
            try:
                content = intact_manifest(staging).version
            except BundleError as error:
                raise BundleError(str(error).replace(str(staging), there)) from None
            if content != version:
                raise BundleError(f"{there}: holds version {content}: copy the bundle again")
        return target

    def _keep(self, bundle: Bundle) -> None:
        if self._read(f"{bundle.version}/{MANIFEST}") is not None:
            return
        folder = f"{self._root}/{bundle.version}"
        with self._reached():
            self._files.makedirs(folder, exist_ok=True)
            for name in (*PARTS, MANIFEST):
                self._files.put_file(str(bundle.path / name), f"{folder}/{name}")

    def _lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors of the store as one of ours: each file system has those of its own libraries."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise BundleError(f"{self.where}: {type(error).__name__}: {error}") from error
