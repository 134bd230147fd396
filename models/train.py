"""The whole recipe: labelled chats and a pretrained encoder in, a bundle out."""

import hashlib
import importlib.metadata
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from tqdm import tqdm

from features.preprocess import PreprocessConfig, Preprocessor
from models.bundle import Bundle, write_bundle, write_manifest
from models.calibrate import abstention_threshold, fit_temperature, out_of_scope_score
from models.classifier import TextClassifier
from models.context import ContextHead, Floats, probabilities
from models.contexts import ContextPool, with_contexts
from models.data import CORPUS, OUT_OF_SCOPE, Example, Split, digest, labels, split
from models.distil import train_student
from models.evaluate import evaluate
from models.export import export_onnx
from models.fuse import CAPS, Trial, balanced, fit_context, scaled
from models.networks import TextNet, keep_embeddings, load_encoder
from models.prune import prune_vocabulary
from models.quantize import quantize_int8
from models.teacher import train_teacher
from models.testsets import by_kind, test_sets, with_holdout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a training run can be told."""

    encoder: str = "default"
    teacher_epochs: int = 8
    student_epochs: int = 5
    student_layers: int = 3
    vocabulary: int = 13000
    max_tokens: int = 96
    precision: float = 0.95
    """Wanted share of right answers among those that are routed."""
    seed: int = 0


def train(
    examples: Sequence[Example], recipe: Recipe, out: Path, work: Path | None = None, data: Path = CORPUS
) -> Bundle:
    """Teacher, student, context part, calibration, export, int8, evaluation; writes `out/<version>`.

    Args:
        data: where the examples come from; the own corpus has a hold-out to be measured on as well.
        work: folder for finished stages; a run with the same data and recipe goes on from there.
    """
    started = time.monotonic()
    parts = with_holdout(split(examples), data)
    names = labels(examples)
    texts, targets = text_targets(parts.train, names, outputs(examples))
    encoder, tokenizer = load_encoder(recipe.encoder)
    config = PreprocessConfig(max_tokens=recipe.max_tokens)
    normalise = Preprocessor(config, tokenizer).normalise
    tokenizer, old_ids = prune_vocabulary(tokenizer, map(normalise, texts), recipe.vocabulary)
    keep_embeddings(encoder, old_ids, recipe.max_tokens)
    preprocessor = Preprocessor(config, tokenizer)
    stage = Stages(work, examples, recipe)
    teacher = stage.run(
        "teacher",
        lambda: train_teacher(
            TextNet(encoder, targets.shape[1]), preprocessor, texts, targets,
            epochs=recipe.teacher_epochs, seed=recipe.seed,
        ),
    )  # fmt: skip
    student = stage.run(
        "student",
        lambda: train_student(
            teacher, preprocessor, texts, targets,
            layers=recipe.student_layers, epochs=recipe.student_epochs, seed=recipe.seed,
        ),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_onnx(student, folder / "fp32.onnx")
        quantize_int8(folder / "fp32.onnx", folder / "text.onnx")
        tokenizer.save(str(folder / "tokenizer.json"))
        classifier = TextClassifier(folder / "text.onnx")
        fitted = fit(parts, names, preprocessor, classifier, recipe)
        fitted.context.save(folder / "context.npz")
        bundle = write_bundle(
            out, {name: folder / name for name in ("text.onnx", "tokenizer.json", "context.npz")},
            labels=names, out_of_scope=targets.shape[1] > len(names), preprocessor=preprocessor,
            temperature=fitted.temperature, confidence_threshold=fitted.confidence_threshold,
            out_of_scope_threshold=fitted.out_of_scope_threshold,
            training=provenance(examples, recipe, time.monotonic() - started),
        )  # fmt: skip
    return with_metrics(bundle, test_sets(examples, data))


class Stages:
    """Results of finished stages, kept in a folder by the data and recipe that made them."""

    def __init__(self, folder: Path | None, examples: Sequence[Example], recipe: Recipe) -> None:
        key = hashlib.sha256(f"{digest(examples)} {recipe}".encode()).hexdigest()[:12]
        self._folder = folder / key if folder else None

    def run(self, name: str, make: Callable[[], T]) -> T:
        """The result of a stage, from the folder if it is there."""
        path = self._folder / f"{name}.pt" if self._folder else None
        if path is not None and path.is_file():
            return cast(T, torch.load(path, weights_only=False))
        made = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(made, path.with_suffix(".draft"))
            path.with_suffix(".draft").replace(path)
        return made


@dataclass(frozen=True, slots=True)
class Fitted:
    context: ContextHead
    temperature: float
    confidence_threshold: float
    out_of_scope_threshold: float


def fit(parts: Split, names: Sequence[str], pre: Preprocessor, classifier: TextClassifier, recipe: Recipe) -> Fitted:
    """Fit what follows the text part: context weights, temperature and thresholds."""
    pool = ContextPool(parts.train)
    rows = with_contexts(parts.train, pool, 2, recipe.seed)
    held = with_contexts(parts.validation, ContextPool(parts.validation) or pool, 4, recipe.seed + 1)
    text, held_text = (_text_logits(part, pre, classifier) for part in (rows, held))
    held_targets = one_hot(held, names, text.shape[1])
    first = fit_temperature(held_text, held_targets)
    context = ContextHead.empty(names, text.shape[1])
    if pool:
        contexts = [pre.context(e.recent_screens, e.product_usage_60d) for e in rows]
        targets = one_hot(rows, names, text.shape[1])
        heads = [
            scaled(fit_context(names, text / first, contexts, targets, cap=cap, seed=recipe.seed), first)
            for cap in tqdm(CAPS, desc="context", unit="cap")
        ]
        context = balanced(heads, trials(parts.validation, names, pre, classifier))
    context_logits = context.logits([pre.context(e.recent_screens, e.product_usage_60d) for e in held])
    temperature = fit_temperature(held_text + context_logits, held_targets)
    p = probabilities(held_text, context_logits, temperature)
    inside = np.array([e.product != OUT_OF_SCOPE for e in held])
    confidence = p[:, : len(names)].max(axis=1)
    correct = p[:, : len(names)].argmax(axis=1) == held_targets.argmax(axis=1)
    strange = out_of_scope_score(held_text, len(names), temperature)
    return Fitted(
        context,
        temperature,
        abstention_threshold(confidence[inside], correct[inside], recipe.precision),
        float(np.quantile(strange[inside], 0.98)),
    )


def trials(rows: Sequence[Example], names: Sequence[str], pre: Preprocessor, classifier: TextClassifier) -> list[Trial]:
    """Ambiguous validation rows with their contexts, and clear ones with misleading contexts, to scale a head on."""
    sets = by_kind(rows)
    made = []
    for kind in ("ambiguous", "misleading"):
        members = sets.get(kind, [])
        if members:
            contexts = [pre.context(e.recent_screens, e.product_usage_60d) for e in members]
            truth = np.array([names.index(e.product) for e in members])
            made.append(Trial(_text_logits(members, pre, classifier)[:, : len(names)], contexts, truth))
    return made


def outputs(examples: Sequence[Example]) -> int:
    """Width of the text logits: the products, plus one column when out-of-scope messages are labelled."""
    return len(labels(examples)) + any(example.product == OUT_OF_SCOPE for example in examples)


def one_hot(examples: Sequence[Example], names: Sequence[str], width: int) -> Floats:
    """(n, width) targets; out of scope is the last column."""
    column = {name: i for i, name in enumerate(names)} | {OUT_OF_SCOPE: width - 1}
    return np.eye(width, dtype=np.float32)[[column[example.product] for example in examples]]


def text_targets(examples: Sequence[Example], names: Sequence[str], width: int) -> tuple[list[str], Floats]:
    """Distinct texts and their (n, width) label distributions: an ambiguous text has several products."""
    rows: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        rows[example.text].append(example)
    means = [one_hot(group, names, width).mean(axis=0) for group in rows.values()]
    return list(rows), np.stack(means).astype(np.float32)


def with_metrics(bundle: Bundle, sets: dict[str, list[Example]]) -> Bundle:
    """Evaluate a bundle on data sets and store the figures in its manifest."""
    classifier = bundle.classifier()
    figures = {name: evaluate(bundle, rows, classifier) for name, rows in sets.items()}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"metrics": figures}))
    return Bundle(bundle.path)


def provenance(examples: Sequence[Example], recipe: Recipe, seconds: float) -> dict[str, Any]:
    """What a manifest says about how the bundle came to be; no path of this machine."""
    libraries = ("torch", "transformers", "onnxruntime", "onnx", "tokenizers", "numpy")
    told = replace(recipe, encoder=Path(recipe.encoder).name)
    return {
        "rows": len(examples),
        "data_sha256": digest(examples),
        "recipe": asdict(told),
        "seconds": round(seconds),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }


def _text_logits(examples: Sequence[Example], pre: Preprocessor, classifier: TextClassifier) -> Floats:
    distinct = {example.text: i for i, example in enumerate({e.text: e for e in examples}.values())}
    logits = classifier(pre.tokens(list(distinct)))
    return logits[[distinct[example.text] for example in examples]]
