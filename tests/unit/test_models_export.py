"""Exported networks answer as those they come from, whatever the batch, and tell nothing of this machine."""

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.preprocess import Ids
from models.blocks import blocks
from models.classifier import TextClassifier, open_session
from models.networks import Floats, TextNet, pad
from tests.unit.tiny import VOCABULARY, bert, logits, random_rows, weights
from tests.unit.tiny_run import exported

FAMILIES = ("bert", "distilbert", "pruned", "cls", "pruned cls")
batches = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture(scope="module")
def made(family: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextNet, Path]:
    return exported(tmp_path_factory.getbasetemp(), family)


def rows_of(lengths: list[int]) -> list[Ids]:
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(5, VOCABULARY, length).astype(np.int32) for length in lengths]


def run(path: Path, rows: list[Ids], extra: int = 0) -> Floats:
    """Logits of one run with all rows padded to the longest and `extra` columns more."""
    ids, mask = (np.pad(part.numpy(), ((0, 0), (0, extra))) for part in pad(rows))
    return cast(Floats, open_session(path).run(None, {"ids": ids, "mask": mask})[0])


def test_padded_batch_has_the_networks_logits(made: tuple[TextNet, Path]) -> None:
    net, path = made
    rows = random_rows(30, longest=40)
    assert len({len(row) for row in rows}) > 10
    assert np.allclose(run(path, rows), logits(net, rows), atol=1e-4)


@settings(max_examples=15)
@given(lengths=batches, extra=st.integers(0, 20))
def test_any_batch_of_any_length_has_the_networks_logits(
    made: tuple[TextNet, Path], lengths: list[int], extra: int
) -> None:
    net, path = made
    rows = rows_of(lengths)
    assert np.allclose(run(path, rows, extra), logits(net, rows), atol=1e-4)


@settings(max_examples=15)
@given(lengths=batches)
def test_padded_row_has_the_logits_of_the_row_alone(made: tuple[TextNet, Path], lengths: list[int]) -> None:
    _, path = made
    rows = rows_of(lengths)
    alone = np.concatenate([run(path, [row]) for row in rows])
    assert np.allclose(run(path, rows), alone, atol=1e-4)
    assert np.array_equal(TextClassifier(path)(rows), alone)


def test_file_tells_no_path_and_no_note_of_the_exporter(made: tuple[TextNet, Path]) -> None:
    content = made[1].read_bytes()
    for told in (str(Path.cwd()), "/work", "/home", "site-packages", "models/export.py", "models/networks.py", ".py"):
        assert told.encode() not in content
    assert not list(made[1].parent.glob("*.data"))


def test_file_notes_shapes_of_results_and_not_of_weights(made: tuple[TextNet, Path]) -> None:
    graph = onnx.load(str(made[1])).graph
    noted = {value.name for value in graph.value_info}
    assert noted
    assert noted <= {name for node in graph.node for name in node.output}


def test_inputs_are_int32_of_any_batch_and_length(made: tuple[TextNet, Path]) -> None:
    inputs = open_session(made[1]).get_inputs()
    assert [(one.name, one.type, one.shape) for one in inputs] == [
        (name, "tensor(int32)", ["batch", "tokens"]) for name in ("ids", "mask")
    ]


@pytest.mark.parametrize(
    ("family", "attentions"), [("bert", 3), ("pruned", 2), ("cls", 3), ("distilbert", 0)], indirect=["family"]
)
def test_attention_of_bert_is_one_node_a_layer(made: tuple[TextNet, Path], attentions: int) -> None:
    kinds = Counter(node.op_type for node in onnx.load(str(made[1])).graph.node)
    assert kinds["MultiHeadAttention"] == attentions
    assert kinds["Softmax"] == (0 if attentions else 1)


@pytest.mark.parametrize("family", ["pruned"], indirect=True)
def test_pruned_heads_and_neurons_are_not_in_the_file(made: tuple[TextNet, Path]) -> None:
    assert [(block.heads, block.neurons) for block in blocks(made[0].encoder)] == [(3, 40)] * 2
    shapes = Counter(tuple(tensor.dims) for tensor in onnx.load(str(made[1])).graph.initializer)
    assert shapes[(32, 72)] == shapes[(24, 32)] == shapes[(32, 40)] == shapes[(40, 32)] == 2


@pytest.mark.parametrize("family", ["pruned cls"], indirect=True)
def test_last_layer_asks_for_the_first_token_only_where_the_head_sees_no_other(made: tuple[TextNet, Path]) -> None:
    shapes = Counter(tuple(tensor.dims) for tensor in onnx.load(str(made[1])).graph.initializer)
    assert [shapes[size] for size in ((32, 72), (32, 48), (32, 24))] == [1, 1, 1]


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_network_is_the_same_after_export(made: tuple[TextNet, Path]) -> None:
    assert torch.equal(weights(made[0]), weights(bert()))
