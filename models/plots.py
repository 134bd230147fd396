"""PNG pictures of figures: confusion matrix, reliability diagram, accuracy against latency.

Matplotlib comes with the extra [train], so only the functions import it; without it they raise `BundleError`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.bundle import BundleError
from models.calibrate import Bools, Ints, expected_calibration_error
from models.context import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED_LABELS = 15
"""The most labels whose counts are written into the cells of a confusion matrix."""


def require_matplotlib() -> None:
    """Find out before the work that no pictures of it could be drawn.

    Raises:
        BundleError: Matplotlib is missing.
    """
    _figure(1, 1)


def confusion_png(matrix: Ints, labels: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, each cell as its share of the row.

    Args:
        matrix: (k, k) counts, a row for each true label; labels: their k names.
    """
    k = len(labels)
    side = 2.5 + (0.55 * k if k <= NUMBERED_LABELS else 0.17 * k)
    figure = _figure(side + 0.8, side)
    from matplotlib.colors import PowerNorm

    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1))  # so that one confusion is seen
    figure.colorbar(image, ax=axes, label="share of the true label", fraction=0.046)
    size = 9 if k <= NUMBERED_LABELS else 6
    names = [_plain(label) for label in labels]
    axes.set_xticks(range(k), names, rotation=90, fontsize=size)
    axes.set_yticks(range(k), names, fontsize=size)
    axes.set(xlabel="answered", ylabel="true")
    if k <= NUMBERED_LABELS:
        for true, answered in np.argwhere(matrix).tolist():
            colour = "white" if shares[true, answered] > 0.2 else "black"
            count = str(matrix[true, answered])
            axes.text(answered, true, count, ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def reliability_png(confidence: Floats, correct: Bools, path: Path, bins: int = 15) -> None:
    """Draw accuracy against confidence in equal-width bins, with the count of each bin below.

    Args:
        confidence: (n,) in [0, 1]; correct: (n,) whether the answer was right.
    """
    figure = _figure(5, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    accuracy = np.bincount(index, weights=correct, minlength=bins) / np.maximum(counts, 1)
    middles = (np.arange(bins) + 0.5) / bins
    above.bar(middles, accuracy, width=1 / bins, edgecolor="white", label="accuracy of the bin")
    above.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfect calibration")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"ECE {expected_calibration_error(confidence, correct, bins):.4f}, n {len(confidence)}")
    below.bar(middles, counts, width=1 / bins, edgecolor="white", color="gray")
    below.set(xlabel="confidence", ylabel="messages")
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def accuracy_latency_png(points: Sequence[tuple[str, str, float, float]], path: Path) -> None:
    """Draw the accuracy of networks against their latency, one line for each data set.

    Args:
        points: (name, data set, accuracy in [0, 1], milliseconds a message, above 0).
    """
    figure = _figure(9, 7)
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = figure.add_subplot()
    axes.set(xlabel="milliseconds a message", ylabel="accuracy", xlim=_span(points))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    for dataset in dict.fromkeys(point[1] for point in points):
        line = sorted((point for point in points if point[1] == dataset), key=lambda point: point[3])
        times, accuracies = [point[3] for point in line], [point[2] for point in line]
        axes.plot(times, accuracies, marker="o", linewidth=0.7, label=_plain(dataset))
        for i, (name, _, accuracy, milliseconds) in enumerate(line):
            above = i % 2 == 0  # upright and by turns, so that networks of nearly the same speed stay apart
            axes.annotate(
                _plain(name), (milliseconds, accuracy), (0, 7 if above else -7), textcoords="offset points",
                ha="center", va="bottom" if above else "top", rotation=90, fontsize=8,
            )  # fmt: skip
    axes.margins(y=0.25)
    axes.grid(alpha=0.3)
    if points:
        figure.legend(loc="outside lower center", ncols=4)
    _save(figure, path)


def _span(points: Sequence[tuple[str, str, float, float]]) -> tuple[float, float]:
    """Ends of the time axis with room for the names of the outermost points."""
    times = [point[3] for point in points] or [1.0]
    return min(times) / 1.6, max(times) * 1.6


def _figure(width: float, height: float) -> "Figure":
    """An empty figure, its sides in inches; drawn by Agg, whatever screen there is."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise BundleError(f"plots need the extra [train]: {error}") from None
    figure = Figure((width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str) -> str:
    """Text that Matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", bbox_inches="tight")
