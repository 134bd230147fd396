"""Copies of a bundle, as they are or with other manifest values."""

import shutil
from pathlib import Path
from typing import Any

from models.bundle import Bundle, content_version, write_manifest


def copied(bundle: Bundle, registry: Path) -> Path:
    """`registry/<version>`, a byte-for-byte copy."""
    return Path(shutil.copytree(bundle.path, registry / bundle.version))


def variant(bundle: Bundle, registry: Path, **changes: Any) -> Path:
    """`registry/<new version>`: a copy whose manifest says something else, with the version that this makes."""
    changed = bundle.manifest.model_copy(update=changes)
    manifest = changed.model_copy(update={"version": content_version(changed)})
    folder = Path(shutil.copytree(bundle.path, registry / manifest.version))
    write_manifest(folder, manifest)
    return folder
