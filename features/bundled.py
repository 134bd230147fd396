"""The preprocessing function of a model bundle, for batch work that does not need the model.

Files are verified with the same function as in serving: `models.bundle` imports `alteration` from here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tokenizers import Tokenizer

from features.preprocess import PreprocessConfig, Preprocessor

T = TypeVar("T")
PRODUCTION = Path(__file__).resolve().parent.parent / "bundles" / "production.json"
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"


class _Pointer(msgspec.Struct):
    version: str


class _Manifest(msgspec.Struct):
    version: str
    preprocessing: dict[str, Any]
    fingerprint: str
    files: dict[str, str]


def bundled_preprocessor(path: Path | None = None) -> Preprocessor:
    """The preprocessing function of a bundle.

    Args:
        path: the bundle's folder, or a file that names the version beside it; default: `bundles/production.json`.

    Raises:
        ValueError: not a bundle; its manifest or tokenizer was altered or truncated (the network is not read); or this
            code's preprocessing differs from the one that the bundle was trained with.
    """
    path = path or PRODUCTION
    folder = path.parent / _read(path, _Pointer).version if path.suffix == ".json" else path
    content = _read(folder / MANIFEST, dict[str, Any])
    manifest = _as_struct(folder / MANIFEST, content, _Manifest)
    if reason := alteration(folder, content, [TOKENIZER]):
        raise ValueError(reason)
    config = PreprocessConfig.model_validate(manifest.preprocessing)
    preprocessor = Preprocessor(config, Tokenizer.from_file(str(folder / TOKENIZER)))
    if preprocessor.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"{folder}: trained with preprocessing {manifest.fingerprint}, this code's is {preprocessor.fingerprint}: "
            f"give a bundle that fits or run the code that it was trained with"
        )
    return preprocessor


def alteration(folder: Path, manifest: Mapping[str, Any], parts: Sequence[str]) -> str | None:
    """How a bundle differs from its manifest, in a sentence; None if it does not.

    Args:
        folder: the bundle's.
        manifest: the content of its `manifest.json`: `version`, and in `files` the SHA-256 of each part.
        parts: names of the files to verify.
    """
    for name in parts:
        expected = manifest["files"].get(name)
        if expected is None:
            return f"{folder}: the manifest lists no {name}"
        try:
            actual = sha256(folder / name)
        except FileNotFoundError:
            return f"{folder / name}: missing"
        if actual != expected:
            return (
                f"{folder / name}: SHA-256 is {actual[:12]}…, the manifest says {expected[:12]}…: "
                "the file was altered or cut short; copy the bundle again"
            )
    version = version_of(manifest)
    if version != manifest["version"]:
        return f"{folder}: the content's version is {version}, the manifest says {manifest['version']}"
    return None


def version_of(manifest: Mapping[str, Any]) -> str:
    """Hash of all that affects answers (parts, labels, preprocessing, temperature, thresholds), without metrics."""
    content = {name: value for name, value in manifest.items() if name not in ("version", "training", "metrics")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path, kind: type[T]) -> T:
    try:
        return _as_struct(path, msgspec.json.decode(path.read_bytes()), kind)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _as_struct(path: Path, content: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from None
