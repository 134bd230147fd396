"""The whole recipe: labelled chats and a pretrained encoder in, a bundle out."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnxruntime

from models.bundle import Bundle, write_bundle, write_manifest
from models.classifier import TextClassifier
from models.compress import Texts, compress
from models.contexts import ContextPool
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, Split, digest, is_corpus, labels, split
from models.evaluate import evaluate
from models.fit import fit
from models.joint import joint_accuracy
from models.recipe import OptionError, Recipe
from models.stages import Stages
from models.targets import outputs, text_targets
from models.testsets import test_sets, with_holdout
from models.variants import compare_variants


def train(
    examples: Sequence[Example],
    recipe: Recipe,
    out: Path,
    work: Path | None = None,
    data: Path = CORPUS,
    validation: Sequence[Example] = (),
    unlabelled: Sequence[str] = (),
) -> Bundle:
    """Compress, fit context and calibration, evaluate; writes `out/<version>`.

    Args:
        work: folder for finished stages (`out/.work`); a run with the same data and recipe goes on from there.
        data: where the examples come from; the own corpus has splits and a hold-out of its own.
        validation: rows to choose epochs and calibrate by, instead of a share of the examples.
        unlabelled: more texts for the teachers to label.

    Raises:
        DataError: too few rows.
        OptionError: an option has no effect, or does not fit the encoder.
        UnknownEncoder: the encoder cannot be pruned.
    """
    require_effect(recipe, data, validation, unlabelled)
    parts = partition(examples, recipe, data, validation)
    if not (parts.train and parts.validation):
        raise DataError(
            f"{len(parts.train)} training and {len(parts.validation)} validation rows: give more data, "
            "another --validation share, or --validation-data"
        )
    names, width = labels(examples), outputs(examples)
    require_known(parts, names, width)
    texts = Texts(
        *text_targets(parts.train, names, width), *text_targets(parts.validation, names, width), tuple(unlabelled)
    )
    stages = Stages(work or out / ".work", parts, recipe, unlabelled)
    compressed = compress(texts, recipe, stages)
    classifier = TextClassifier(compressed.served)
    fitted = fit(parts, names, compressed.preprocessor, classifier, recipe)
    fitted.context.save(stages.folder / "context.npz")
    bundle = write_bundle(
        out,
        {
            "text.onnx": compressed.served,
            "tokenizer.json": stages.folder / "tokenizer.json",
            "context.npz": stages.folder / "context.npz",
        },
        labels=names, out_of_scope=width > len(names), preprocessor=compressed.preprocessor,
        temperature=fitted.temperature, confidence_threshold=fitted.confidence_threshold,
        out_of_scope_threshold=fitted.out_of_scope_threshold,
        training=provenance(examples, recipe, data, sum(stages.seconds().values()), fitted.calibration),
    )  # fmt: skip
    bundle = with_metrics(bundle, sets := test_sets(parts, data))
    joint = {}
    if ContextPool(parts.train):
        joint = joint_accuracy(parts, sets, names, compressed.preprocessor, classifier, recipe.seed)
    compare_variants(compressed, texts, parts.calibration or parts.validation, sets, bundle, stages.folder, joint)
    return bundle


def partition(examples: Sequence[Example], recipe: Recipe, data: Path, validation: Sequence[Example] = ()) -> Split:
    """Training, validation and test rows; the own corpus always splits 80/10/10, so that runs compare."""
    if is_corpus(data):
        return with_holdout(split(examples), data)
    if validation:
        parts = split(examples, validation=0.0, test=recipe.test)
        return Split(parts.train, [*validation], parts.test)
    return split(examples, recipe.validation, recipe.test)


def with_metrics(bundle: Bundle, sets: dict[str, list[Example]]) -> Bundle:
    """Evaluate a bundle on data sets and store the figures in its manifest."""
    classifier = bundle.classifier()
    figures = {name: evaluate(bundle, rows, classifier) for name, rows in sets.items()}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"metrics": figures}))
    return Bundle(bundle.path)


def provenance(
    examples: Sequence[Example], recipe: Recipe, data: Path, seconds: float, calibration: dict[str, Any]
) -> dict[str, Any]:
    """What a manifest says about how the bundle came to be; no path of this machine."""
    told = replace(recipe, encoder=Path(recipe.encoder).name, student=Path(recipe.student).name)
    return {
        "data": data.name,
        "rows": len(examples),
        "data_sha256": digest(examples),
        "recipe": asdict(told),
        "seconds": round(seconds),
        "calibration": calibration,
        "libraries": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Of what has a hand in training; ONNX Runtime goes by several package names."""
    names = ("torch", "transformers", "onnx", "tokenizers", "numpy")
    return {name: importlib.metadata.version(name) for name in names} | {"onnxruntime": onnxruntime.__version__}


def require_effect(recipe: Recipe, data: Path, validation: Sequence[Example], unlabelled: Sequence[str] = ()) -> None:
    """Find out before hours of training that the rows are not split or used as the options say.

    Raises:
        OptionError: naming the one that would have no effect.
    """
    usual = Recipe()
    if unlabelled and recipe.student == "teacher":
        raise OptionError("--unlabelled has no effect with --student teacher, which learns from labels: leave it out")
    if is_corpus(data) and validation:
        raise OptionError("--validation-data has no effect on the own corpus, which has such rows: give --data, too")
    if is_corpus(data) and (recipe.validation, recipe.test) != (usual.validation, usual.test):
        raise OptionError("--validation and --test have no effect on the own corpus, split 80/10/10: leave them out")
    if validation and recipe.validation != usual.validation:
        raise OptionError("--validation has no effect where --validation-data or --data gives such rows: leave it out")


def require_known(parts: Split, names: Sequence[str], width: int) -> None:
    """Find out before hours of training that the validation rows cannot be used.

    Raises:
        DataError: labels that the training rows lack, or no row that is about a product.
    """
    known = {*names} | ({OUT_OF_SCOPE} if width > len(names) else set())
    held = {row.product for row in parts.validation}
    if unknown := sorted(held - known):
        raise DataError(f"validation rows have labels that no training row has: {', '.join(unknown)}")
    if held == {OUT_OF_SCOPE}:
        raise DataError("every validation row is out of scope: give a larger --validation share, or --validation-data")
