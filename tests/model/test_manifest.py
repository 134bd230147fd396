"""The figures of the committed bundle are the ones that it reaches, and it is fit to be the default."""

import json
from pathlib import Path

import pytest

from models.__main__ import main
from models.bundle import Bundle
from models.data import CORPUS, digest, load, split
from models.evaluate import evaluate
from models.testsets import test_sets as sets_of


def test_evaluate_reproduces_the_manifest(bundle: Bundle) -> None:
    examples = load(CORPUS)
    assert bundle.manifest.training["data_sha256"] == digest(examples)
    classifier = bundle.classifier()
    for name, rows in sets_of(split(examples), CORPUS).items():
        told = bundle.manifest.metrics[name]
        report = evaluate(bundle, rows, classifier)
        assert report["n"] == told["n"]
        assert report["accuracy"] == pytest.approx(told["accuracy"], abs=0.01)


def test_plots_of_every_test_set_of_the_manifest(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--plots", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    sets = {path.name: {picture.name for picture in path.iterdir()} for path in tmp_path.iterdir()}
    assert sets == {name: {"confusion.png", "reliability.png"} for name in bundle.manifest.metrics}
    assert figures.keys() == {"version", *sets}


def test_the_bundle_is_small(bundle: Bundle) -> None:
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= 12 * 10**6


def test_the_hold_out_figures_reach_the_targets(bundle: Bundle) -> None:
    figures = bundle.manifest.metrics
    assert figures["holdout_clear"]["accuracy"] >= 0.92
    assert figures["holdout_ambiguous"]["accuracy"] >= 0.88
    assert figures["holdout_misleading"]["accuracy"] >= 0.88
    assert figures["holdout_clear"]["ood_auroc"] >= 0.95
