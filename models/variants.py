"""What each step of compression costs and buys: size and quality of every network of a run."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from features.drafts import replacing
from features.preprocess import Preprocessor
from models.bundle import Bundle, Manifest
from models.calibrate import consistent_temperature
from models.classifier import TextClassifier
from models.compress import AWARE_FILE, Compressed, Texts, quantized
from models.data import OUT_OF_SCOPE, Example
from models.evaluate import Scores, metrics
from models.fit import text_logits
from models.quantize import sparsify
from models.targets import one_hot
from models.testsets import text_sets

SPARSITY = 0.8
OF_TEACHER = ("teacher", "teacher_fp16")
"""Networks that read the teacher's tokens."""


def compare_variants(
    compressed: Compressed,
    texts: Texts,
    held: Sequence[Example],
    sets: Mapping[str, Sequence[Example]],
    bundle: Bundle,
    folder: Path,
    joint: Mapping[str, float],
) -> Path:
    """Measure every network of a run, and others for comparison only; writes `run.json` into the run's folder.

    Made for comparison are `static` (int8 with fixed activation ranges), `sparse` (80 % of the weights zero) and
    `sparse_int8`; for GPUs `fp16`, unless it is served, and `teacher_fp16`, unless the teacher is what is quantised;
    and, if the served network had quantisation-aware training, `unaware`, int8 without it. Quality is that of the words
    alone, each network with a temperature of its own; the networks are measured in parallel.

    Args:
        held: rows that the temperatures are fitted on: those without a context, or all if each has one.
        sets: to measure on, see `models.testsets.text_sets`.
        joint: accuracy of the joint head by set, recorded beside that of the additive context part.
    """
    sets, inside = text_sets(sets), [row for row in held if row.product != OUT_OF_SCOPE]
    plain = [row for row in inside if not row.has_context] or inside
    networks = compressed.networks | _comparisons(compressed, texts, folder)

    def description(name: str) -> dict[str, Any]:
        teacher = name in OF_TEACHER
        tokenizer = "teacher_tokenizer.json" if teacher else "tokenizer.json"
        pre = compressed.teacher_preprocessor if teacher else compressed.preprocessor
        return {"tokenizer": tokenizer, **_described(networks[name], pre, bundle.manifest, plain, sets)}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = tqdm(pool.map(description, networks), total=len(networks), desc="compare", unit="network")
        descriptions = dict(zip(networks, told, strict=True))
    run = {
        "version": bundle.version,
        "training": bundle.manifest.training,
        "max_tokens": compressed.preprocessor.config.max_tokens,
        "served": bundle.manifest.metrics,
        "joint_accuracy": joint,
        "networks": descriptions,
    }
    target = folder / "run.json"
    with replacing(target) as draft:
        draft.write_text(json.dumps(run, indent=1) + "\n")
    return target


def parameters(path: Path) -> int:
    """The number of weights in an ONNX file."""
    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(str(path)).graph.initializer)


def _comparisons(compressed: Compressed, texts: Texts, folder: Path) -> dict[str, Path]:
    teacher = compressed.networks["teacher"]
    source = compressed.networks.get("pruned", teacher)
    static, sparse, sparse_int8 = (folder / f"{name}.onnx" for name in ("static", "sparse", "sparse_int8"))
    quantized(source, static, "static", texts.sample(compressed.preprocessor, 0)[0])
    with replacing(sparse) as draft:
        sparsify(source, draft, SPARSITY)
    quantized(sparse, sparse_int8, "dynamic")
    made = {"static": static, "sparse": sparse, "sparse_int8": sparse_int8}
    if source != teacher:
        made["teacher_fp16"] = quantized(teacher, folder / "teacher_fp16.onnx", "fp16")
    if "fp16" not in compressed.networks:
        made["fp16"] = quantized(source, folder / "fp16.onnx", "fp16")
    if compressed.served.name == AWARE_FILE:
        made = {"unaware": folder / "int8.onnx"} | made
    return made


def _described(
    path: Path, pre: Preprocessor, manifest: Manifest, held: Sequence[Example], sets: Mapping[str, Sequence[Example]]
) -> dict[str, Any]:
    """Size of a network, and its quality at the temperature that is fitted on the held rows."""
    classifier = TextClassifier(path)
    truth = one_hot(held, manifest.labels, manifest.outputs)
    temperature = consistent_temperature(text_logits(held, pre, classifier), truth, len(manifest.labels))
    return {
        "file": path.name,
        "parameters": parameters(path),
        "bytes": path.stat().st_size,
        "sets": {key: _quality(rows, manifest, pre, classifier, temperature) for key, rows in sets.items()},
    }


def _quality(
    rows: Sequence[Example], manifest: Manifest, pre: Preprocessor, classifier: TextClassifier, temperature: float
) -> dict[str, Any]:
    """Figures of the words alone at a temperature."""
    text = classifier(pre.tokens([row.text for row in rows]))
    own = manifest.model_copy(update={"temperature": temperature})
    figures = metrics(own, Scores(text, np.zeros_like(text)), [row.product for row in rows])
    return {key: figures[key] for key in ("n", "accuracy", "ece", "ood_auroc")}
