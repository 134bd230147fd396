"""All that `python -m models evaluate` tells about a bundle: figures, slices, confusions, pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.bundle import Bundle
from models.calibrate import Bools, Ints
from models.classifier import TextClassifier
from models.confusion import as_text, confusion
from models.context import Floats, probabilities
from models.data import CORPUS, DataError, Example, digest, load, split
from models.evaluate import Scores, measure
from models.plots import confusion_png, reliability_png
from models.slices import FIGURES, SLICES, noisy_accuracy, slices
from models.testsets import test_sets

NOISY = "noisy"


def judge(
    bundle: Bundle, examples: Sequence[Example], classifier: TextClassifier, plots: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Measure a bundle on labelled chats; prints nothing.

    Args:
        plots: folder that gets `confusion.png` and `reliability.png`.

    Returns:
        The report of `evaluate.evaluate` with `slices`, see `slices.slices`, and in it `noisy`: n and accuracy
        on the same rows after `augment.noisy`. Then the same as text for a terminal, with the confusion matrix.

    Raises:
        DataError: a label that the bundle does not know.
        BundleError: plots are wanted and Matplotlib is missing.
    """
    labels = bundle.manifest.labels
    scores, report = measure(bundle, examples, classifier)
    report["slices"] = slices(bundle, scores, examples)
    accuracy = noisy_accuracy(bundle, classifier, examples)
    if accuracy is not None:
        report["slices"][NOISY] = {"n": report["n"], "accuracy": accuracy}
    answers, confidence, truth = _answers(bundle, scores, examples)
    matrix = confusion(answers, truth, labels)
    if plots is not None:
        draw(matrix, labels, confidence, _equal(answers, truth), plots)
    return report, render(report, matrix, labels)


def reproduce(bundle: Bundle, plots: Path | None = None) -> tuple[dict[str, Any], str]:
    """Measure a bundle of the own corpus again on the test sets of its manifest; prints nothing.

    Args:
        plots: folder that gets one for each set, see `draw`.

    Returns:
        The report of `evaluate.evaluate` for each set, and lines that compare them with the manifest.

    Raises:
        DataError: the bundle was trained on other data.
        BundleError: plots are wanted and Matplotlib is missing.
    """
    corpus = load(CORPUS)
    if bundle.manifest.training.get("data_sha256") != digest(corpus):
        raise DataError(f"bundle {bundle.version} was trained on other data than {CORPUS}: name a file with --data")
    classifier, figures, lines = bundle.classifier(), {}, []
    for name, rows in tqdm(test_sets(split(corpus), CORPUS).items(), unit="set", leave=False):
        scores, report = measure(bundle, rows, classifier)
        if plots is not None:
            answers, confidence, truth = _answers(bundle, scores, rows)
            labels = bundle.manifest.labels
            draw(confusion(answers, truth, labels), labels, confidence, _equal(answers, truth), plots / name)
        told = compared(report, bundle.manifest.metrics.get(name, {}))
        lines.append(f"{name:>20}  n {report['n']:>4}  accuracy {report['accuracy']:.4f}  {told}")
        figures[name] = report
    return figures, "\n".join(lines)


def compared(report: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """What the manifest says of a set, by the figures that differ from those of its report."""
    other = [f"{key} {recorded.get(key)}" for key in report if report[key] != recorded.get(key)]
    if not other:
        return "as in the manifest"
    return f"the manifest says {', '.join(other)}" if recorded else "not in the manifest"


def draw(matrix: Ints, labels: Sequence[str], confidence: Floats, correct: Bools, plots: Path) -> None:
    """Write `confusion.png` and `reliability.png` into a folder.

    Args:
        matrix: (labels, labels), see `confusion`; confidence, correct: (n,) of each answer.

    Raises:
        BundleError: Matplotlib is missing.
    """
    confusion_png(matrix, labels, plots / "confusion.png")
    reliability_png(confidence, correct, plots / "reliability.png")


def render(report: Mapping[str, Any], matrix: Ints, labels: Sequence[str]) -> str:
    """The text of a report for a terminal: overall, classes from the worst, slices, confusions.

    Args:
        report: see `judge`; matrix: (k, k) counts, see `confusion.confusion`; labels: their k names.
    """
    parts = [_overall(report)]
    if report["n"]:
        parts += [_classes(report["f1"]), _slices(report["slices"]), iter([as_text(matrix, labels)])]
    return "\n\n".join("\n".join(part) for part in parts)


def _answers(bundle: Bundle, scores: Scores, examples: Sequence[Example]) -> tuple[Ints, Floats, Ints]:
    """(n,) answered label, confidence in it and true label of the in-scope rows; labels as their positions."""
    column = {label: i for i, label in enumerate(bundle.manifest.labels)}
    inside = [i for i, example in enumerate(examples) if example.product in column]
    truth = np.array([column[examples[i].product] for i in inside], dtype=np.int64)
    p = probabilities(scores.text[inside], scores.context[inside], bundle.manifest.temperature)[:, : len(column)]
    return p.argmax(axis=1), p.max(axis=1), truth


def _equal(answers: Ints, truth: Ints) -> Bools:
    return np.asarray(answers == truth, dtype=np.bool_)


def _overall(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'chats':<18}  {report['n']} in scope, {report['ood_n']} out of scope"
    if report["n"]:
        words, context = report["accuracy_text_only"], report["accuracy_context_only"]
        yield f"{'accuracy':<18}  {report['accuracy']:.4f}, words alone {words:.4f}, context alone {_cell(context)}"
        yield f"{'macro F1':<18}  {report['macro_f1']:.4f}"
        yield f"{'calibration error':<18}  {report['ece']:.4f}"
        right = _cell(report["selective_accuracy"])
        yield f"{'coverage':<18}  {report['coverage']:.4f} routed to a product, {right} of these right"
    if report["ood_n"]:
        routed = report["ood_routed"]
        yield f"{'out of scope':<18}  AUROC {_cell(report['ood_auroc'])}, {routed:.4f} routed to a product all the same"


def _classes(f1: Mapping[str, float]) -> Iterator[str]:
    width = max(map(len, [*f1, "product, worst first"]))
    yield f"{'product, worst first':<{width}}  {'f1':>6}"
    for product, value in sorted(f1.items(), key=lambda item: item[1]):
        yield f"{product:<{width}}  {value:.4f}"


def _slices(report: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    told = SLICES | {NOISY: "the same messages, typed in a hurry"}
    yield f"{'slice':<18}" + "".join(f"{figure:>10}" for figure in FIGURES)
    for name, figures in report.items():
        cells = "".join(f"{_cell(figures.get(figure)):>10}" for figure in FIGURES)
        yield f"{name:<18}{cells}  {told[name]}"


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
