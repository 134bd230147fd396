"""Within quantisation-aware training a network computes as its int8 copy will; after it, by itself again."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from features.preprocess import Ids
from models.blocks import UnknownEncoder, blocks, layer_stack
from models.classifier import TextClassifier
from models.distil import distil
from models.export import export_onnx
from models.networks import Floats, TextNet, pad
from models.optimise import Schedule
from models.quantization_aware import as_quantized
from models.quantize import quantize
from models.transfer import TransferSet, label
from tests.unit.tiny import bert, chats, distilbert, learner, logits, one_hot, preprocessor, random_rows
from tests.unit.tiny_run import exported

ROWS = random_rows(60, seed=1)
NETS: dict[str, Callable[[int], TextNet]] = {"bert": bert, "learner": learner, "distilbert": distilbert}
PRE = preprocessor()
SCHEDULE = Schedule(2, 1e-3, batch_size=16, head_rate=3.0)


class Copy:
    """A network, and its int8 copy in a file.

    Args:
        name: a family, and a seed if it is not the one of the test session.
    """

    def __init__(self, name: str, base: Path, folder: Path) -> None:
        family, _, seed = name.partition(" ")
        if seed:
            self.net, source = NETS[family](int(seed)), folder / "text.onnx"
            export_onnx(self.net, source)
        else:
            self.net, source = exported(base, family)
        self.path = folder / "int8.onnx"
        quantize(source, self.path, "dynamic", [])
        self.fused = family != "distilbert"
        answers = TextClassifier(self.path)(ROWS)
        self.before = difference(alone(self.net, ROWS), answers)
        with as_quantized(self.net):
            self.within = difference(alone(self.net, ROWS), answers)

    def operands(self, operator: str, place: int) -> list[Floats]:
        """What the nodes of this kind get from the file, in order, as the numbers that it stands for."""
        graph = onnx.load(str(self.path)).graph
        tensors: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        found = []
        for node in graph.node:
            if node.op_type == operator and node.input[place].endswith("_quantized"):
                name = node.input[place].removesuffix("_quantized")
                levels = tensors[f"{name}_quantized"].astype(np.float32) - tensors[f"{name}_zero_point"]
                found.append((levels * tensors[f"{name}_scale"]).astype(np.float32))
        return found


@pytest.fixture(scope="module", params=["bert", "bert 1", "pruned", "cls", "distilbert"])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(request.param, tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("aware"))


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> TextNet:
    return NETS[request.param](0)


@pytest.fixture(scope="module")
def transfer() -> TransferSet:
    texts = [row.text for row in chats(60)]
    return label([bert(1)], PRE, texts, [-1] * len(texts), one_hot([0] * len(texts)))


def alone(net: TextNet, rows: Sequence[Ids]) -> Floats:
    """(n, outputs) of messages one at a time, as they are served on a CPU."""
    return np.concatenate([logits(net, [row]) for row in rows])


def difference(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).mean())


def values(net: TextNet) -> dict[str, Tensor]:
    """The weights by the names that they have outside."""
    state = net.state_dict()
    return {name.replace(".parametrizations.weight.original", ".weight"): state[name].clone() for name in state}


def rounded(net: TextNet) -> dict[str, Any]:
    """The maps of the layers and of the head, and the table of words."""
    parts = ("query", "key", "value", "mix", "feed_in", "feed_out")
    maps = {f"{part} {i}": getattr(block, part) for i, block in enumerate(blocks(net.encoder)) for part in parts}
    return maps | {"head": net.head, "words": net.encoder.get_input_embeddings()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def test_answers_are_those_of_the_int8_copy_but_for_a_tenth_of_what_rounding_does(copy: Copy) -> None:
    assert copy.within < 0.1 * copy.before


def test_weights_of_the_layers_are_those_of_the_int8_copy(copy: Copy) -> None:
    layers, wanted = [*blocks(copy.net.encoder)], []
    with as_quantized(copy.net):
        for block in layers:
            query, key, value = block.query.weight, block.key.weight, block.value.weight
            if copy.net.pooling == "cls" and block is layers[-1]:
                wanted += [torch.cat([key, value]), query]
            else:
                wanted += [torch.cat([query, key, value])] if copy.fused else [query, key, value]
            wanted += [block.mix.weight, block.feed_in.weight, block.feed_out.weight]
        found = copy.operands("MatMulInteger", 1)[: len(wanted)]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other.detach().numpy().T, atol=1e-6)


def test_table_of_words_is_that_of_the_int8_copy(copy: Copy) -> None:
    with as_quantized(copy.net):
        table = copy.net.encoder.get_input_embeddings().weight.detach().numpy()
        np.testing.assert_allclose(copy.operands("Gather", 0)[0], table, atol=1e-6)


def test_weights_of_the_head_are_those_of_the_int8_copy(copy: Copy) -> None:
    with as_quantized(copy.net):
        head = copy.net.head.weight.detach().numpy()
        np.testing.assert_allclose(copy.operands("MatMulInteger", 1)[-1], head.T, atol=1e-6)


def test_inputs_of_the_layers_lie_on_256_steps_of_the_range_of_each_message(net: TextNet) -> None:
    seen: dict[str, list[Tensor]] = {}
    maps = {name: module for name, module in rounded(net).items() if name != "words"}

    def note(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        return lambda module, inputs: seen.setdefault(name, []).append(inputs[0])

    for name, module in maps.items():
        module.register_forward_pre_hook(note(name))
    with as_quantized(net):
        for name, module in maps.items():
            module.register_forward_pre_hook(note(name))
        logits(net, [ROWS[0][:2], ROWS[1][:2], ROWS[2][:2]])
    assert seen.keys() == maps.keys()
    for before, after in seen.values():
        for raw, found in zip(before, after, strict=True):
            step = float(raw.max().clamp(min=0) - raw.min().clamp(max=0)) / 255
            assert (found - raw).abs().max() < 1.01 * step
            levels = found / step
            assert torch.allclose(levels, levels.round(), atol=0.01)
            assert (found != raw).any()


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_the_network_is_as_before_also_when_the_block_fails(net: TextNet, fails: bool) -> None:
    answers, before = logits(net, ROWS), values(net)

    def within() -> None:
        with as_quantized(net):
            assert difference(logits(net, ROWS), answers) > 0
            if fails:
                raise KeyError("in the block")

    for _ in range(2):
        if fails:
            with pytest.raises(KeyError, match="in the block"):
                within()
        else:
            within()
        assert_equal(dict(net.state_dict()), before)
        assert np.array_equal(logits(net, ROWS), answers)
        assert all(weight.requires_grad for weight in net.parameters())
    torch.save(net, io.BytesIO())


def test_a_network_of_an_unknown_layout_is_refused_and_left_as_it_is() -> None:
    net = bert()
    last: Any = layer_stack(net.encoder)[-1]
    output, before = last.output, values(net)
    del last.output
    with pytest.raises(UnknownEncoder, match="output"), as_quantized(net):
        raise AssertionError
    last.output = output
    assert_equal(dict(net.state_dict()), before)
    assert np.array_equal(logits(net, ROWS), logits(bert(), ROWS))


def test_gradients_reach_every_rounded_weight(net: TextNet) -> None:
    with as_quantized(net):
        net(*pad(ROWS)).square().sum().backward()
        gradients = {name: module.parametrizations.weight.original.grad for name, module in rounded(net).items()}
    used = torch.from_numpy(np.unique(np.concatenate(ROWS))).long()
    gradients["words"] = gradients["words"][used]
    for name, gradient in gradients.items():
        assert (gradient != 0).float().mean() > 0.99, name
    assert net.head.weight.grad is not None


@pytest.mark.parametrize("validated", [False, True])
def test_what_training_changes_within_stays(net: TextNet, transfer: TransferSet, validated: bool) -> None:
    rows = PRE.tokens(transfer.texts)
    before = values(net)
    with as_quantized(net):
        distil(net, PRE, transfer, SCHEDULE, validation=(rows, transfer.labels) if validated else None)
        trained, coarse = values(net), logits(net, ROWS)
    assert_equal(dict(net.state_dict()), trained)
    alike = {name for name in before if torch.equal(before[name], trained[name])}
    assert alike == {name for name in before if name.endswith("_ids")}
    assert difference(logits(net, ROWS), coarse) > 0


def test_training_within_brings_the_rounded_network_nearer_to_its_teacher(transfer: TransferSet) -> None:
    net, rows = bert(4), PRE.tokens(transfer.texts)

    def agreement() -> float:
        return float((logits(net, rows).argmax(axis=1) == transfer.logits.argmax(axis=1)).mean())

    before = agreement()
    with as_quantized(net):
        distil(net, PRE, transfer, Schedule(8, 4e-3, batch_size=16, head_rate=3.0))
        assert agreement() > before + 0.3
    assert agreement() > before + 0.3
