"""The parts of a Transformer layer, under the names that the common encoder families give them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from models.bundle import BundleError


@dataclass(frozen=True, slots=True)
class Block:
    """The linear maps of one layer.

    `attention` is the module that holds query, key and value; `feed_in` and `feed_out` lie around the activation.
    """

    attention: Any
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    mix: nn.Linear
    feed_in: nn.Linear
    feed_out: nn.Linear
    head_size: int

    @property
    def heads(self) -> int:
        return self.query.out_features // self.head_size

    @property
    def neurons(self) -> int:
        return self.feed_in.out_features


class UnknownEncoder(BundleError):
    """The encoder's layers are not laid out in a way known here."""


def layer_stack(encoder: Any) -> nn.ModuleList:
    """The list of an encoder's layers.

    Raises:
        UnknownEncoder: there is no list as long as the configuration says.
    """
    for module in encoder.modules():
        if type(module) is nn.ModuleList and len(module) == encoder.config.num_hidden_layers:
            return module
    raise UnknownEncoder(f"{type(encoder).__name__}: found no list of {encoder.config.num_hidden_layers} layers")


def blocks(encoder: Any) -> Iterator[Block]:
    """The layers of a BERT-like (BERT, RoBERTa, ELECTRA, CamemBERT) or DistilBERT encoder.

    Raises:
        UnknownEncoder: a layer of another family.
    """
    for layer in layer_stack(encoder):
        yield _block(layer, encoder.config)


def _block(layer: Any, config: Any) -> Block:
    size = config.hidden_size // config.num_attention_heads
    try:
        if hasattr(layer, "ffn"):
            part, feed = layer.attention, layer.ffn
            return Block(part, part.q_lin, part.k_lin, part.v_lin, part.out_lin, feed.lin1, feed.lin2, size)
        part, mix = layer.attention.self, layer.attention.output.dense
        return Block(part, part.query, part.key, part.value, mix, layer.intermediate.dense, layer.output.dense, size)
    except AttributeError as error:
        raise UnknownEncoder(f"{type(layer).__name__}: cannot be pruned: {error}") from None
