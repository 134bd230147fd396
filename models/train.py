"""The whole recipe: labelled chats and a pretrained encoder in, a bundle out."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime

from models.bundle import Bundle, write_bundle, write_manifest
from models.classifier import TextClassifier
from models.compress import Texts, compress
from models.context_sampling import ContextPool
from models.data import OUT_OF_SCOPE, DataError, Example, Split, digest, is_corpus, labels, split
from models.evaluate import evaluate
from models.fit import fit, require_contexts
from models.inputs import Inputs
from models.joint import joint_accuracy
from models.recipe import STUDENTS, OptionError, Recipe, flag
from models.stages import Stages
from models.targets import outputs, text_targets
from models.testsets import test_sets, with_holdout
from models.variants import compare_variants

OF_STUDENTS = (
    "student_layers", "pooling", "student_epochs", "noise", "mixtures", "heads", "neurons", "recovery_epochs",
    "vocabulary", "int8_tolerance", "aware_epochs",
)  # fmt: skip
"""Fields of the recipe that have an effect only if a student is trained."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    bundle: Bundle
    folder: Path
    """Of all its networks and `run.json`, as `bench --run` takes it."""


def run(inputs: Inputs, recipe: Recipe, out: Path, work: Path | None = None) -> Run:
    """Compress, fit context and calibration, evaluate; writes `out/<version>`.

    Args:
        work: folder for finished stages (`out/.work`); a run with the same data and recipe goes on from there.

    Raises:
        DataError: the rows are too few, or unfit to train, choose or measure networks on; see `require_rows`.
        OptionError: an option has no effect, or does not fit the encoder.
        UnknownEncoder: the encoder cannot be pruned.
        BlockingIOError: another run does the same in the same folder.
    """
    require_effect(inputs, recipe)
    if recipe.student == "teacher":
        recipe = replace(recipe, teachers=1)  # that one is served
    parts = partition(inputs.examples, recipe, inputs.data, inputs.validation)
    require_rows(parts)
    require_contexts(parts)
    stages = Stages(work or out / ".work", parts, recipe, inputs.unlabelled)
    with stages.alone():
        return Run(_bundle(inputs, recipe, out, parts, stages), stages.folder)


def _bundle(inputs: Inputs, recipe: Recipe, out: Path, parts: Split, stages: Stages) -> Bundle:
    names, width = labels(parts.train), outputs(parts.train)
    learnt, held = (text_targets(rows, names, width) for rows in (parts.train, parts.validation))
    texts = Texts(*learnt, *held, tuple(inputs.unlabelled))
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
        training=provenance(inputs, recipe, sum(stages.seconds().values()), fitted.calibration),
    )  # fmt: skip
    sets = test_sets(parts, inputs.data)
    bundle = with_metrics(bundle, sets)
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


def provenance(inputs: Inputs, recipe: Recipe, seconds: float, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says about how the bundle came to be; no path of this machine.

    Args:
        seconds: how long the stages took.
        calibration: see `Fitted`.
    """
    told = replace(recipe, encoder=_called(recipe.encoder), student=_called(recipe.student))
    return {
        "data": inputs.data.name,
        "rows": len(inputs.examples),
        "data_sha256": digest(inputs.examples),
        "inputs": inputs.files,
        "recipe": asdict(told),
        "seconds": round(seconds),
        "calibration": calibration,
        "libraries": library_versions(),
    }


def _called(encoder: str) -> str:
    """The name of a local folder without its path; a hub id as it is."""
    folder = Path(encoder)
    return folder.resolve().name if folder.is_dir() else encoder


def library_versions() -> dict[str, str]:
    """Versions of the libraries that training uses; ONNX Runtime's package has several names."""
    names = ("torch", "transformers", "onnx", "tokenizers", "numpy")
    return {name: importlib.metadata.version(name) for name in names} | {"onnxruntime": onnxruntime.__version__}


def require_effect(inputs: Inputs, recipe: Recipe) -> None:
    """Refuse, before hours of training, rows or options that would not be used as they were given.

    Raises:
        OptionError: naming the one that would have no effect.
    """
    usual = Recipe()
    whole = "--student teacher, which learns from labels and is served whole"
    if recipe.student == "teacher" and inputs.unlabelled:
        raise OptionError(f"--unlabelled has no effect with {whole}: leave it out")
    idle = [(name, whole) for name in OF_STUDENTS if recipe.student == "teacher"]
    if recipe.student == "teacher" and recipe.teachers != 1:
        idle.append(("teachers", whole))
    if recipe.student not in STUDENTS:
        idle.append(("student_layers", f"--student {recipe.student}"))
    if recipe.quantization != "dynamic":
        reason = f"--quantization {recipe.quantization}"
        idle += [("int8_tolerance", reason), ("aware_epochs", reason)]
    elif not recipe.aware_epochs:
        idle.append(("int8_tolerance", "--aware-epochs 0"))
    for name, reason in idle:
        if getattr(recipe, name) != getattr(usual, name):
            raise OptionError(f"{flag(name)} has no effect with {reason}: leave it out")
    if is_corpus(inputs.data) and inputs.validation:
        raise OptionError("--validation-data has no effect on the own corpus, which has such rows: give --data, too")
    if is_corpus(inputs.data) and (recipe.validation, recipe.test) != (usual.validation, usual.test):
        raise OptionError("--validation and --test have no effect on the own corpus, split 80/10/10: leave them out")
    if inputs.validation and recipe.validation != usual.validation:
        raise OptionError("--validation has no effect where --validation-data or --data gives such rows: leave it out")


def require_rows(parts: Split) -> None:
    """Refuse, before hours of training, rows that networks cannot be trained, chosen or measured on.

    Raises:
        DataError: no training or no validation rows, training rows with one label only, a label that only other rows
            have, or no validation row about a product.
    """
    if not (parts.train and parts.validation):
        raise DataError(
            f"{len(parts.train)} training and {len(parts.validation)} validation rows, since nearly equal ones stay "
            "together: give more data, another --validation share, or --validation-data"
        )
    learnt, held = ({row.product for row in rows} for rows in (parts.train, parts.validation))
    if len(learnt) < 2:
        raise DataError(f"every training row is labelled {learnt.pop()!r}: give rows of another product, too")
    for name, found in (("validation", held), ("test", {row.product for row in parts.test})):
        if unknown := sorted(found - learnt):
            raise DataError(
                f"{name} rows have labels that no training row has: {', '.join(unknown)}: give more rows of them, "
                "since nearly equal ones stay together, or none"
            )
    if held == {OUT_OF_SCOPE}:
        raise DataError("every validation row is out of scope: give a larger --validation share, or --validation-data")
