"""The preprocessing function of a model bundle, for batch work that needs nothing else of the model."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tokenizers import Tokenizer

from features.preprocess import PreprocessConfig, Preprocessor

T = TypeVar("T", bound=msgspec.Struct)
PRODUCTION = Path(__file__).resolve().parent.parent / "bundles" / "production.json"


class _Pointer(msgspec.Struct):
    version: str


class _Manifest(msgspec.Struct):
    preprocessing: dict[str, Any]
    fingerprint: str


def bundled_preprocessor(path: Path | None = None) -> Preprocessor:
    """The preprocessing function of a bundle.

    Args:
        path: the bundle's folder, or a file that names the version beside it; default: `bundles/production.json`.

    Raises:
        ValueError: not a bundle, or the running code preprocesses otherwise than the bundle was trained with.
    """
    path = path or PRODUCTION
    folder = path.parent / _read(path, _Pointer).version if path.suffix == ".json" else path
    manifest = _read(folder / "manifest.json", _Manifest)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ValueError(f"{tokenizer}: no such file, so {folder} is not a bundle")
    config = PreprocessConfig.model_validate(manifest.preprocessing)
    preprocessor = Preprocessor(config, Tokenizer.from_file(str(tokenizer)))
    if preprocessor.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"{folder}: trained with preprocessing {manifest.fingerprint}, this code's is {preprocessor.fingerprint}: "
            f"give a bundle that fits or run the code that it was trained with"
        )
    return preprocessor


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
