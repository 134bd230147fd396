"""Quantisation-aware training: recovery training in which the network already computes as its int8 copy will.

Weights and activations are rounded in the forward pass and keep their gradients as if they were not (the
straight-through estimator, Bengio, Léonard & Courville, 2013; for integer inference Jacob et al., 2018). The ranges
are those of `quantize_int8`: seven bits, per output channel, for weights; eight bits from the least to the largest
value, and zero, for the activations of one message, padding included, and for tables that are looked up. What the
exported network computes for the first token only has that token's range: in training, each token its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.blocks import blocks
from models.export import computes_first_only, is_fused
from models.networks import TextNet

WEIGHT_LEVELS = 64
"""Steps on each side of zero."""
BYTE_LEVELS = 255
"""Steps from the least to the largest value."""


@contextmanager
def as_quantized(net: TextNet) -> Iterator[None]:
    """Within it, the network computes and trains with the rounding of int8; after it, with its own weights.

    Raises:
        UnknownEncoder: the encoder's layers have another layout.
    """
    layers = list(blocks(net.encoder))
    linears = [net.head]
    for block in layers:
        linears += [block.query, block.key, block.value, block.mix, block.feed_in, block.feed_out]
    tables = _tables(net)
    last = layers[-1]
    by_token = (last.query, last.mix, last.feed_in, last.feed_out) if computes_first_only(net) else ()
    hooks = [
        linear.register_forward_pre_hook(_round_tokens if linear in by_token else _round_input) for linear in linears
    ]
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", _RoundedChannels())
    for table in tables:
        parametrize.register_parametrization(table, "weight", _RoundedTable())
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in (*linears, *tables):
            _restore(module)


def _tables(net: TextNet) -> list[nn.Module]:
    """The tables that are looked up by number in the exported network; BERT's positions are a plain sum there."""
    if is_fused(net):
        return [net.encoder.get_input_embeddings()]
    return [module for module in net.encoder.modules() if isinstance(module, nn.Embedding)]


class _RoundedChannels(nn.Module):
    """(outputs, inputs) weights to the same on the grid of each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        step = (weight.detach().abs().amax(dim=1, keepdim=True) / WEIGHT_LEVELS).clamp(min=1e-12)
        return _straight_through(weight, torch.round(weight / step) * step)


class _RoundedTable(nn.Module):
    """(words, width) embeddings to the same on one grid."""

    def forward(self, table: Tensor) -> Tensor:
        return _straight_through(table, _rounded_to_bytes(table.unsqueeze(0)).squeeze(0))


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(batch, …) activations on the grid of each message's own range."""
    return (_straight_through(inputs[0], _rounded_to_bytes(inputs[0])), *inputs[1:])


def _round_tokens(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(batch, tokens, width) activations on the grid of each token's own range."""
    rounded = _rounded_to_bytes(inputs[0].flatten(0, 1)).view_as(inputs[0])
    return (_straight_through(inputs[0], rounded), *inputs[1:])


def _rounded_to_bytes(values: Tensor) -> Tensor:
    """(n, …) values, each of the n on the grid from its least to its largest value, of which zero is a point."""
    inner = tuple(range(1, values.dim()))
    low = values.detach().amin(inner, keepdim=True).clamp(max=0)
    high = values.detach().amax(inner, keepdim=True).clamp(min=0)
    step = ((high - low) / BYTE_LEVELS).clamp(min=1e-12)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(values / step) + zero, 0, BYTE_LEVELS) - zero) * step


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded - value).detach()


def _restore(module: Any) -> None:
    """Take the rounding off and keep the trained weight, which `remove_parametrizations` would replace."""
    trained = module.parametrizations.weight.original.detach()
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    with torch.no_grad():
        module.weight.copy_(trained)
