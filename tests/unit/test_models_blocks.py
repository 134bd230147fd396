"""The parts of a layer are found in the common encoder families, and others are refused by name."""

from typing import Any

import pytest
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    CamembertConfig,
    CamembertModel,
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
)

from models.blocks import UnknownEncoder, blocks, layer_stack
from tests.unit.tiny import bert, distilbert

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
FAMILIES: dict[str, Any] = {
    "bert": lambda: bert().encoder,
    "distilbert": lambda: distilbert().encoder,
    "roberta": lambda: RobertaModel(RobertaConfig(**SHAPE)),
    "camembert": lambda: CamembertModel(CamembertConfig(**SHAPE)),
    "electra": lambda: ElectraModel(ElectraConfig(**SHAPE)),
}


@pytest.fixture(params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


def test_every_layer_has_its_parts(encoder: Any) -> None:
    found = list(blocks(encoder))
    assert len(found) == len(layer_stack(encoder)) == 3
    for block in found:
        assert (block.heads, block.head_size, block.neurons) == (4, 8, 64)
        assert {(linear.in_features, linear.out_features) for linear in (block.query, block.key, block.value)} == {
            (32, 32)
        }
        assert (block.mix.in_features, block.mix.out_features) == (32, 32)
        assert (block.feed_in.in_features, block.feed_in.out_features) == (32, 64)
        assert (block.feed_out.in_features, block.feed_out.out_features) == (64, 32)


def test_parts_are_all_the_linear_maps_of_their_own_layer(encoder: Any) -> None:
    layers: Any = layer_stack(encoder)
    for layer, block in zip(layers, blocks(encoder), strict=True):
        parts = (block.query, block.key, block.value, block.mix, block.feed_in, block.feed_out)
        assert {id(part) for part in parts} == {id(m) for m in layer.modules() if isinstance(m, nn.Linear)}
        assert block.attention in layer.modules()


def test_encoder_without_a_list_of_layers_is_refused() -> None:
    shared = AlbertModel(AlbertConfig(**SHAPE, embedding_size=16))
    with pytest.raises(UnknownEncoder, match=r"^AlbertModel: found no list of 3 layers$"):
        layer_stack(shared)


def test_foreign_layer_is_refused_by_its_name() -> None:
    foreign = GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4))
    with pytest.raises(UnknownEncoder, match=r"^GPT2Block: cannot be pruned: .*attention"):
        list(blocks(foreign))
