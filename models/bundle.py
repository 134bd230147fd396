"""The model bundle: a folder that is all that serving needs, and all that changes the answer."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from features.bundled import MANIFEST, TOKENIZER, alteration, sha256, version_of
from features.drafts import replacing
from features.preprocess import PreprocessConfig, Preprocessor
from models.classifier import Device, TextClassifier
from models.context import ContextHead

PARTS = ("text.onnx", TOKENIZER, "context.npz")
TEMPERATURE_DECIMALS = 4
DIGITS = 9
"""Significant digits of a threshold, as many as tell any two float32 scores apart."""


class BundleError(RuntimeError):
    """A bundle that must not be served; the message says which file or value is wrong and what to do."""


class Manifest(BaseModel):
    """What a bundle is, how it was made, and how good it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """Hash of everything that changes an answer."""
    labels: tuple[str, ...]
    out_of_scope: bool
    """Whether the text logits end with a column for messages about none of the labels."""
    preprocessing: PreprocessConfig
    fingerprint: str
    """Of the preprocessing function that the text part was trained with."""
    temperature: float = Field(gt=0)
    confidence_threshold: float = Field(ge=0, le=1)
    """Answers below go to the general queue."""
    out_of_scope_threshold: float = Field(ge=0, le=1)
    """Messages that score above go to the general queue."""
    files: Mapping[str, str]
    """SHA-256 of each part."""
    training: Mapping[str, Any] = Field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Evaluation by data set, as `python -m models evaluate` prints it."""

    @property
    def outputs(self) -> int:
        return len(self.labels) + int(self.out_of_scope)

    def routes(self, confidence: Any, out_of_scope: Any) -> Any:
        """Whether an answer is routed to a desk rather than to the general queue; for arrays, of each element."""
        return (confidence >= self.confidence_threshold) & (out_of_scope <= self.out_of_scope_threshold)


class Bundle:
    """A bundle on disk, verified: hashes, version and preprocessing fingerprint fit.

    Raises:
        BundleError: a part is missing, altered or truncated, or the running code's preprocessing differs
            from the one that the bundle was trained with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = intact_manifest(path)
        if self.preprocessor.fingerprint != self.manifest.fingerprint:
            raise BundleError(
                f"{path}: trained with preprocessing {self.manifest.fingerprint}, this code's is "
                f"{self.preprocessor.fingerprint}: retrain the bundle or run the code that it was trained with"
            )

    @property
    def version(self) -> str:
        return self.manifest.version

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """What turns texts into the token vectors that the text part was trained on."""
        tokenizer = Tokenizer.from_file(str(self.path / TOKENIZER))
        return Preprocessor(self.manifest.preprocessing, tokenizer)

    @cached_property
    def context(self) -> ContextHead:
        """What turns recent screens and usage into (n, outputs) logits."""
        return ContextHead.load(self.path / "context.npz")

    def classifier(self, device: Device = "cpu", threads: int = 1) -> TextClassifier:
        """The text classifier, warmed with short and long batches.

        Raises:
            BundleError: the network cannot be read or run, or its width does not fit the labels.
            RuntimeError: the device is not there, or cannot run it.
        """
        with as_bundle_errors(f"{self.path}: text.onnx cannot be read or run"):
            classifier = TextClassifier(self.path / "text.onnx", device=device, threads=threads)
            if classifier.outputs != self.manifest.outputs:
                raise BundleError(
                    f"{self.path}: text.onnx has {classifier.outputs} outputs, the labels need {self.manifest.outputs}"
                )
            for text in ("hi", "warm up " * 8, "warm up " * 200):
                classifier(self.preprocessor.tokens([text] * 8))
        return classifier


@contextmanager
def as_bundle_errors(fault: str) -> Iterator[None]:
    """Raise what ONNX Runtime says of a network as `BundleError("FAULT: reason")`."""
    try:
        yield
    except (RuntimeError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime has no narrower type for it
        reason = [*str(error).splitlines(), type(error).__name__][0]
        raise BundleError(f"{fault}: {reason}") from error


def read_manifest(path: Path) -> Manifest:
    """Read and validate a bundle's manifest without touching its parts.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    try:
        return parse_manifest((path / MANIFEST).read_bytes(), str(path))
    except FileNotFoundError:
        raise BundleError(f"{path}: no manifest.json, so not a bundle") from None


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Validate the content of a `manifest.json`.

    Raises:
        BundleError: it is damaged; the message begins with where it comes from.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(": ".join([f"{where}/{MANIFEST}", *filter(None, [key]), first["msg"]])) from None


def intact_manifest(path: Path) -> Manifest:
    """The manifest of a bundle whose parts are as they were written, whatever preprocessing they need.

    Raises:
        BundleError: a part is missing, altered or truncated, or the version is not that of the content.
    """
    manifest = read_manifest(path)
    if reason := alteration(path, manifest.model_dump(mode="json"), PARTS):
        raise BundleError(reason)
    return manifest


def content_version(manifest: Manifest) -> str:
    """See `features.bundled.version_of`."""
    return version_of(manifest.model_dump(mode="json"))


def write_bundle(
    registry: Path,
    parts: Mapping[str, Path],
    *,
    labels: Sequence[str],
    out_of_scope: bool,
    preprocessor: Preprocessor,
    temperature: float,
    confidence_threshold: float,
    out_of_scope_threshold: float,
    training: Mapping[str, Any],
) -> Bundle:
    """Copy the parts into `registry/<version>` and write the manifest; complete or not there at all.

    A bundle of the same content that is there and intact stays as it is, its figures included. Thresholds are rounded
    to `DIGITS` so that whatever is routed by the given ones still is.

    Args:
        registry: folder, made if it is not there.
        parts: a file for each name of `PARTS`.
        temperature, confidence_threshold, out_of_scope_threshold, training: see `Manifest`.

    Raises:
        BundleError: a part is missing, or was altered while it was copied.
        KeyError: `parts` lacks a name.
        OSError: the folder cannot be written.
    """
    manifest = Manifest(
        version="",
        labels=tuple(labels),
        out_of_scope=out_of_scope,
        preprocessing=preprocessor.config,
        fingerprint=preprocessor.fingerprint,
        temperature=round(temperature, TEMPERATURE_DECIMALS),
        confidence_threshold=_rounded(confidence_threshold, ROUND_FLOOR),
        out_of_scope_threshold=_rounded(out_of_scope_threshold, ROUND_CEILING),
        files={name: _sha256(parts[name]) for name in PARTS},
        training=training,
    )
    manifest = manifest.model_copy(update={"version": content_version(manifest)})
    target = registry / manifest.version
    with placing(target) as staging:
        for name in PARTS:
            shutil.copyfile(parts[name], staging / name)
        write_manifest(staging, manifest)
    return Bundle(target)


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the target's place unless an intact bundle is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        staging = Path(scratch, "bundle")
        staging.mkdir()
        yield staging
        if not is_intact(target):
            shutil.rmtree(target, ignore_errors=True)
            try:
                staging.replace(target)
            except OSError:  # another process has just placed the same
                if not is_intact(target):
                    raise


def is_intact(path: Path) -> bool:
    """Whether a folder holds a bundle as it was written, whatever preprocessing it needs."""
    try:
        intact_manifest(path)
    except BundleError:
        return False
    return True


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically."""
    with replacing(folder / MANIFEST) as draft:
        draft.write_text(json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")


def _rounded(threshold: float, direction: str) -> float:
    return float(Context(prec=DIGITS, rounding=direction).create_decimal(repr(float(threshold))))


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: missing") from None
