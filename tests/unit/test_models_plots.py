"""Pictures: PNG files that show what they are given."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from models.__main__ import main
from models.bundle import Bundle
from models.calibrate import Ints
from models.classifier import TextClassifier
from models.data import CORPUS, load
from models.judge import judge
from models.plots import accuracy_latency_png, confusion_png, reliability_png

ROOT = Path(__file__).resolve().parents[2]
POINTS = [("int8", "clinc150", 0.95, 1.1), ("student", "clinc150", 0.96, 6.0), ("int8", "banking77", 0.92, 1.3)]
CONFIDENCE = np.linspace(0.05, 1, 40, dtype=np.float32)


def counts(k: int) -> Ints:
    return np.eye(k, dtype=np.int64) * 7 + np.tri(k, dtype=np.int64)


def pixels(path: Path) -> Any:
    """(height, width, channels) of a picture that is a PNG and not blank."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = np.asarray(imread(path))
    assert picture.ndim == 3
    assert picture[..., :3].std() > 0.01
    return picture


@pytest.mark.parametrize("k", [1, 2, 15, 16, 77])
def test_confusions_of_few_and_of_many_labels(tmp_path: Path, k: int) -> None:
    confusion_png(counts(k), [f"label_{i}" for i in range(k)], tmp_path / "confusion.png")
    height, width, _ = pixels(tmp_path / "confusion.png").shape
    assert min(height, width) > 8 * k


@pytest.mark.parametrize(
    ("draw", "one", "other"),
    [
        (confusion_png, (counts(3), ["a", "b", "c"]), (counts(3).T, ["a", "b", "c"])),
        (confusion_png, (counts(3), ["a", "b", "c"]), (counts(3), ["a", "b", "d"])),
        (confusion_png, (counts(16), ["a"] * 16), (counts(16).T, ["a"] * 16)),
        (reliability_png, (CONFIDENCE, CONFIDENCE > 0.3), (CONFIDENCE, CONFIDENCE > 0.7)),
        (reliability_png, (CONFIDENCE, CONFIDENCE > 0.3), (np.sqrt(CONFIDENCE), CONFIDENCE > 0.3)),
        (accuracy_latency_png, (POINTS,), (POINTS[:2],)),
        (accuracy_latency_png, (POINTS,), ([("fp16", *POINTS[0][1:]), *POINTS[1:]],)),
        (accuracy_latency_png, (POINTS,), ([(*POINTS[0][:3], 1.2), *POINTS[1:]],)),
    ],
)
def test_other_figures_make_another_picture_and_the_same_the_same(
    tmp_path: Path, draw: Callable[..., None], one: tuple[Any, ...], other: tuple[Any, ...]
) -> None:
    for name, figures in (("one", one), ("again", one), ("other", other)):
        draw(*figures, tmp_path / f"{name}.png")
    first = pixels(tmp_path / "one.png")
    assert np.array_equal(first, pixels(tmp_path / "again.png"))
    assert not np.array_equal(first, pixels(tmp_path / "other.png"))


def test_bars_of_the_reliability_diagram_are_as_high_as_the_accuracy(tmp_path: Path) -> None:
    confidence = np.linspace(0, 1, 900, dtype=np.float32)
    areas = []
    for wrong_every in (1, 2, 4, 1_000):
        correct = np.arange(1, 901) % wrong_every != 0
        reliability_png(confidence, correct, tmp_path / "reliability.png")
        red, green, blue = np.moveaxis(pixels(tmp_path / "reliability.png")[..., :3], -1, 0)
        areas.append(int(((blue > red + 0.3) & (blue > green + 0.15)).sum()))
    none, half, most, all_right = areas
    assert (half - none) / (all_right - none) == pytest.approx(0.5, abs=0.04)
    assert (most - none) / (all_right - none) == pytest.approx(0.75, abs=0.04)


def test_figures_of_nothing_are_empty_pictures(tmp_path: Path) -> None:
    none = np.zeros(0)
    reliability_png(none.astype(np.float32), none.astype(np.bool_), tmp_path / "reliability.png")
    confusion_png(np.zeros((2, 2), dtype=np.int64), ["a", "b"], tmp_path / "confusion.png")
    accuracy_latency_png([], tmp_path / "latency.png")
    assert all(pixels(path).size for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_dollars_in_names_are_no_formula(tmp_path: Path) -> None:
    confusion_png(counts(2), [r"$\frac$", "R$ 5"], tmp_path / "confusion.png")
    accuracy_latency_png([(r"$\oops$", r"$^$", 0.9, 1.0)], tmp_path / "latency.png")
    pixels(tmp_path / "confusion.png")
    pixels(tmp_path / "latency.png")


def test_judge_writes_its_pictures_into_a_new_folder(
    bundle: Bundle, classifier: TextClassifier, tmp_path: Path
) -> None:
    judge(bundle, load(CORPUS / "holdout" / "clear.jsonl")[:30], classifier, tmp_path / "plots" / "today")
    written = sorted((tmp_path / "plots" / "today").iterdir())
    assert [path.name for path in written] == ["confusion.png", "reliability.png"]
    for path in written:
        pixels(path)


def python(code: str) -> str:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_matplotlib_is_not_loaded_before_a_picture_is_drawn() -> None:
    loaded = python(
        "import sys, models.judge, models.plots; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    assert loaded.split() == ["False", "False"]


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from models.bundle import BundleError; import models.plots as plots\n"
        "sys.modules['matplotlib'] = None  # as if it were not installed\n"
        f"try: plots.accuracy_latency_png([], Path({str(tmp_path / 'a.png')!r}))\n"
        "except BundleError as error: print(error)\n"
    )
    told = python(code)
    assert told.startswith("plots need the extra [train]: ")
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "command", [["evaluate", "--data", "none.csv", "--plots"], ["report", "--runs", "none", "--page"]]
)
def test_without_matplotlib_commands_that_draw_end_before_their_work(tmp_path: Path, command: list[str]) -> None:
    code = (
        "import sys; from models.__main__ import main; sys.stderr = sys.stdout\n"
        "sys.modules['matplotlib'] = None  # as if it were not installed\n"
        f"print(main({[*command, str(tmp_path / 'plots')]!r}))\n"
    )
    told, status = python(code).splitlines()
    assert told.startswith("error: plots need the extra [train]: ")
    assert status == "2"
    assert not list(tmp_path.iterdir())


def test_pictures_that_have_no_folder_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plots").write_text("a file")
    assert main(["evaluate", "--data", "none.csv", "--plots", str(tmp_path / "plots")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "plots") in told
