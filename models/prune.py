"""Structured pruning: whole layers, attention heads and feed-forward neurons go, so inference does less.

Importance of heads and neurons is first-order: how much the loss would change if their output were zero, the mean
over rows of |output * gradient of the loss by output| (Molchanov et al., 2017; Michel, Levy & Neubig, 2019). Layers
go one at a time, each time the one whose absence hurts least. What is left needs recovery training, see `distil`.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.preprocess import Ids
from models.blocks import Block, blocks, layer_stack
from models.networks import Floats, TextNet, pad
from models.teacher import predict

BATCH = 32


def keep_layers(net: TextNet, layers: Sequence[int]) -> TextNet:
    """A copy of the network that keeps only the given encoder layers, counted from 0."""
    smaller = copy.deepcopy(net)
    stack = layer_stack(smaller.encoder)
    kept = [stack[i] for i in layers]
    del stack[:]
    stack.extend(kept)
    smaller.encoder.config.num_hidden_layers = len(layers)
    return smaller


def important_layers(net: TextNet, rows: Sequence[Ids], targets: Floats, keep: int) -> list[int]:
    """The layers that stay, in order. The one whose absence raises the loss least goes, until `keep` are left.

    Args:
        rows: (n,) token vectors; targets: (n, outputs) label distributions, to measure the loss by.
    """
    left = list(range(len(layer_stack(net.encoder))))
    while len(left) > keep:
        rivals = [[i for i in left if i != gone] for gone in left]
        left = min(rivals, key=lambda layers: _loss(keep_layers(net, layers), rows, targets))
    return left


def prune_blocks(net: TextNet, rows: Sequence[Ids], targets: Floats, heads: int, neurons: int) -> TextNet:
    """A copy whose layers keep their `heads` and `neurons` most important ones.

    Args:
        rows: (n,) token vectors; targets: (n, outputs) label distributions, to measure importance by.

    Raises:
        UnknownEncoder: the encoder's layers have another layout.
    """
    smaller = copy.deepcopy(net).eval()
    for block, (by_head, by_neuron) in zip(
        list(blocks(smaller.encoder)), importance(smaller, rows, targets), strict=True
    ):
        _keep_heads(block, _best(by_head, heads))
        _keep_neurons(block, _best(by_neuron, neurons))
    return smaller


def importance(net: TextNet, rows: Sequence[Ids], targets: Floats) -> list[tuple[Tensor, Tensor]]:
    """(heads,) and (neurons,) importance of every layer."""
    parts = list(blocks(net.encoder))
    seen: dict[nn.Module, Tensor] = {}

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        inputs[0].retain_grad()
        seen[module] = inputs[0]

    hooks = [m.register_forward_pre_hook(remember) for part in parts for m in (part.mix, part.feed_out)]
    totals = [(torch.zeros(part.heads), torch.zeros(part.neurons)) for part in parts]
    for start in range(0, len(rows), BATCH):
        ids, mask = pad(rows[start : start + BATCH])
        truth = torch.from_numpy(targets[start : start + BATCH])
        value = functional.cross_entropy(net(ids, mask), truth, reduction="sum")
        net.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        for part, (by_head, by_neuron) in zip(parts, totals, strict=True):
            effect = _effect(seen[part.mix])
            by_head += effect.reshape(len(effect), part.heads, -1).sum(2).abs().sum(0)
            by_neuron += _effect(seen[part.feed_out]).abs().sum(0)
    for hook in hooks:
        hook.remove()
    net.zero_grad()
    return totals


def _effect(output: Tensor) -> Tensor:
    """(batch, columns) of output * gradient, summed over the tokens."""
    assert output.grad is not None
    return (output * output.grad).detach().sum(1)


def _loss(net: TextNet, rows: Sequence[Ids], targets: Floats) -> float:
    logits = torch.from_numpy(predict(net, rows)[0])
    return float(functional.cross_entropy(logits, torch.from_numpy(targets)))


def _best(scores: Tensor, keep: int) -> Tensor:
    return scores.topk(min(keep, len(scores))).indices.sort().values


def _keep_heads(block: Block, kept: Tensor) -> None:
    size = block.head_size
    rows = (kept.unsqueeze(1) * size + torch.arange(size)).flatten()
    for linear in (block.query, block.key, block.value):
        _keep_outputs(linear, rows)
    _keep_inputs(block.mix, rows)
    for name in ("num_attention_heads", "n_heads"):
        if hasattr(block.attention, name):
            setattr(block.attention, name, len(kept))
    for name in ("all_head_size", "dim"):
        if hasattr(block.attention, name):
            setattr(block.attention, name, len(rows))


def _keep_neurons(block: Block, kept: Tensor) -> None:
    _keep_outputs(block.feed_in, kept)
    _keep_inputs(block.feed_out, kept)


def _keep_outputs(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[kept].clone())
    linear.bias = nn.Parameter(linear.bias.detach()[kept].clone())
    linear.out_features = len(kept)


def _keep_inputs(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[:, kept].clone())
    linear.in_features = len(kept)
