"""Smaller copies of a network answer alike; sparse copies lose the share of weights that was asked for."""

import logging
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from models.classifier import TextClassifier, is_int8
from models.networks import Floats
from models.quantize import quantize, sparsify
from tests.unit.tiny import random_rows
from tests.unit.tiny_run import exported

KINDS = {"dynamic": True, "static": True, "fp16": False}
ROWS = random_rows(200, seed=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.getbasetemp(), "bert")[1]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def smaller(source: Path, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantised") / f"{kind}.onnx"
    quantize(source, target, kind, random_rows(60))
    return target


def used_by(path: Path, *operators: str) -> dict[str, Floats]:
    """The tensors that are inputs of these operators, by name."""
    graph = onnx.load(str(path)).graph
    names = {name for node in graph.node if node.op_type in operators for name in node.input}
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in names}


def test_copy_is_smaller(source: Path, smaller: Path, kind: str) -> None:
    assert smaller.stat().st_size < 0.62 * source.stat().st_size
    assert is_int8(smaller) == KINDS[kind]
    assert not is_int8(source)


def test_copy_answers_alike(source: Path, smaller: Path, kind: str) -> None:
    wanted, found = TextClassifier(source)(ROWS), TextClassifier(smaller)(ROWS)
    ordered = np.sort(wanted, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1.0
    assert clear.sum() > 100
    assert np.array_equal(found[clear].argmax(axis=1), wanted[clear].argmax(axis=1))
    assert np.abs(found - wanted).mean() < {"fp16": 0.01}.get(kind, 0.15)


def test_copy_answers_alike_in_float32(smaller: Path) -> None:
    assert TextClassifier(smaller)(ROWS[:2]).dtype == np.float32


def test_static_ranges_are_those_of_the_calibration_rows(source: Path, tmp_path: Path) -> None:
    for name, rows in (("many", random_rows(60)), ("one", random_rows(1, seed=5, longest=2))):
        quantize(source, tmp_path / name, "static", rows)
    error = {name: _error(source, tmp_path / name) for name in ("many", "one")}
    assert error["many"] < error["one"]


def _error(source: Path, other: Path) -> float:
    return float(np.abs(TextClassifier(source)(ROWS) - TextClassifier(other)(ROWS)).mean())


def test_unknown_kind_is_refused_with_those_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'int4': expected 'dynamic', 'static' or 'fp16'"):
        quantize(source, tmp_path / "text.onnx", "int4", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "share"), [("dynamic", 0.5), ("static", 0.5), ("dynamic", 0)])
def test_a_full_disk_is_told_and_leaves_no_copy(source: Path, tmp_path: Path, kind: str, share: float) -> None:
    own = tmp_path / "text.onnx"
    own.write_bytes(source.read_bytes())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(own.stat().st_size * share), before[1]))
    try:
        with pytest.raises(OSError, match=r"text\.onnx was cut short: is the disk full"):
            quantize(own, tmp_path / "smaller.onnx", kind, random_rows(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [own]


def test_quantising_leaves_the_log_of_the_program_as_it_is(source: Path, tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        quantize(source, tmp_path / "text.onnx", "fp16", [])
        assert root.level == logging.INFO
    finally:
        root.setLevel(before)


@settings(max_examples=8)
@given(share=st.floats(0.05, 0.95))
def test_asked_share_of_every_matrix_is_zero(
    source: Path, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.getbasetemp() / "sparse.onnx"
    sparsify(source, target, share)
    before = used_by(source, "MatMul", "Gemm")
    matrices = {name: weight for name, weight in used_by(target, "MatMul", "Gemm").items() if weight.ndim == 2}
    assert len(matrices) == 3 * 4 + 1
    for name, weight in matrices.items():
        kept = weight != 0
        assert abs((~kept).mean() - share) <= 1.5 / weight.size
        assert np.array_equal(weight[kept], before[name][kept])
        assert np.abs(before[name][~kept]).max() <= np.abs(weight[kept]).min()


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_sparse_network_keeps_its_embeddings(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tables of tokens and positions are looked up, not multiplied: zeros there would save nothing."""
    _, source = exported(tmp_path_factory.getbasetemp(), family)
    target = tmp_path_factory.mktemp("sparse") / "text.onnx"
    sparsify(source, target, 0.5)
    before, after = (used_by(path, "Gather", "Slice") for path in (source, target))
    assert sum(table.ndim == 2 for table in before.values()) >= 2
    assert [name for name, table in before.items() if not np.array_equal(after[name], table)] == []
