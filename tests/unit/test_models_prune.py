"""Structured pruning: what is kept is kept exactly, and what adds nothing goes first, without a trace."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2Model, RobertaConfig, RobertaModel

from models.blocks import UnknownEncoder, blocks, layer_stack
from models.context import softmax
from models.networks import Floats, TextNet
from models.prune import importance, important_layers, keep_layers, prune_blocks
from tests.unit.tiny import VOCABULARY, bert, distilbert, logits, one_hot, random_rows, weights

HEADS, NEURONS = 4, 64
ROWS = random_rows(40)
TARGETS = one_hot([i % 3 for i in range(40)])


def roberta() -> TextNet:
    config = RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return TextNet(RobertaModel(config, add_pooling_layer=False), 3).eval()


FAMILIES = {"bert": bert, "distilbert": distilbert, "roberta": roberta}
family = st.sampled_from(sorted(FAMILIES))
dead_heads = st.sets(st.integers(0, HEADS - 1), min_size=1, max_size=HEADS - 1)
dead_neurons = st.sets(st.integers(0, NEURONS - 1), min_size=1, max_size=NEURONS - 1)


def with_dead(net: TextNet, heads: Sequence[set[int]], neurons: Sequence[set[int]]) -> TextNet:
    """The network with nothing going out of the given heads and neurons of each layer."""
    with torch.no_grad():
        for block, some, others in zip(blocks(net.encoder), heads, neurons, strict=True):
            for head in some:
                block.mix.weight[:, head * block.head_size : (head + 1) * block.head_size] = 0
            block.feed_out.weight[:, sorted(others)] = 0
    return net


def same_number(dead: st.SearchStrategy[set[int]], whole: int) -> st.SearchStrategy[list[set[int]]]:
    """Three sets of one size."""
    return dead.flatmap(
        lambda some: st.lists(
            st.sets(st.integers(0, whole - 1), min_size=len(some), max_size=len(some)), min_size=3, max_size=3
        )
    )


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=1, unique=True).map(sorted), family)
def test_kept_layers_are_exactly_those_of_the_network(layers: list[int], name: str) -> None:
    net = FAMILIES[name]()
    before = weights(net).clone()
    smaller = keep_layers(net, layers)
    kept = layer_stack(smaller.encoder)
    assert len(kept) == smaller.encoder.config.num_hidden_layers == len(layers)
    for layer, i in zip(kept, layers, strict=True):
        for mine, own in zip(layer.parameters(), layer_stack(net.encoder)[i].parameters(), strict=True):
            assert torch.equal(mine, own)
            assert mine.data_ptr() != own.data_ptr()
    assert torch.equal(weights(net), before)
    assert (len(layers) == 3) == np.allclose(logits(smaller, ROWS), logits(net, ROWS))


def test_layer_that_does_nothing_goes_first() -> None:
    net = bert()
    layers: list[Any] = list(layer_stack(net.encoder))
    first, idle, _ = layers
    block = list(blocks(net.encoder))[1]
    with torch.no_grad():
        for linear in (block.mix, block.feed_out):
            linear.weight.zero_()
            linear.bias.zero_()
        for norm in (first.output.LayerNorm, idle.attention.output.LayerNorm, idle.output.LayerNorm):
            norm.weight.fill_(1)
            norm.bias.zero_()
    targets = softmax(logits(net, ROWS))
    assert important_layers(net, ROWS, targets, 2) == [0, 2]
    assert len(important_layers(net, ROWS, targets, 1)) == 1
    assert important_layers(net, ROWS, targets, 5) == [0, 1, 2]


@settings(max_examples=12)
@given(family, same_number(dead_heads, HEADS), same_number(dead_neurons, NEURONS))
def test_pruning_what_adds_nothing_changes_no_logits(name: str, heads: list[set[int]], neurons: list[set[int]]) -> None:
    net = with_dead(FAMILIES[name](), heads, neurons)
    smaller = prune_blocks(net, ROWS, TARGETS, HEADS - len(heads[0]), NEURONS - len(neurons[0]))
    for block in blocks(smaller.encoder):
        assert (block.heads, block.neurons) == (HEADS - len(heads[0]), NEURONS - len(neurons[0]))
    assert np.allclose(logits(smaller, ROWS), logits(net, ROWS), atol=1e-4)


@settings(max_examples=12)
@given(family, st.lists(dead_heads, min_size=3, max_size=3), st.lists(dead_neurons, min_size=3, max_size=3))
def test_what_adds_nothing_is_the_least_important(name: str, heads: list[set[int]], neurons: list[set[int]]) -> None:
    net = with_dead(FAMILIES[name](), heads, neurons)
    for (by_head, by_neuron), some, others in zip(importance(net, ROWS, TARGETS), heads, neurons, strict=True):
        assert set(by_head.argsort()[: len(some)].tolist()) == some
        assert set(by_neuron.argsort()[: len(others)].tolist()) == others
        assert by_head[sorted(some)].max() < 1e-6 < by_head.max()


@settings(max_examples=8)
@given(family, st.integers(1, 5), st.integers(1, 80))
def test_pruned_shapes_and_the_network_it_came_from(name: str, heads: int, neurons: int) -> None:
    net = FAMILIES[name]()
    before = weights(net).clone()
    smaller = prune_blocks(net, ROWS, TARGETS, heads, neurons)
    heads, neurons = min(heads, HEADS), min(neurons, NEURONS)
    for block in blocks(smaller.encoder):
        for linear in (block.query, block.key, block.value):
            assert linear.weight.shape == (heads * 8, 32)
            assert linear.bias.shape == (heads * 8,)
        assert block.mix.weight.shape == (32, heads * 8)
        assert block.feed_in.weight.shape == (neurons, 32)
        assert block.feed_out.weight.shape == (32, neurons)
    assert logits(smaller, ROWS).shape == (40, 3)
    assert torch.equal(weights(net), before)


@pytest.mark.parametrize("count", [32, 40])
def test_every_row_counts_alike_for_importance(count: int) -> None:
    """Whichever batch it falls into, and however full that is."""

    def shares(rows: Sequence[int]) -> list[Floats]:
        parts = importance(bert(), [ROWS[i] for i in rows], TARGETS[list(rows)])
        return [part.numpy() for pair in parts for part in pair]

    single = [shares([i]) for i in range(count)]
    for part, found in enumerate(shares(range(count))):
        wanted = np.sum([one[part] for one in single], axis=0)
        assert np.allclose(found / found.sum(), wanted / wanted.sum(), atol=1e-4)


def test_pruning_leaves_a_network_that_can_be_trained() -> None:
    smaller = prune_blocks(bert(), ROWS, TARGETS, 2, 16)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in smaller.encoder.parameters())


def test_foreign_layer_is_refused() -> None:
    foreign = TextNet(GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4)), 3)
    with pytest.raises(UnknownEncoder, match="GPT2Block: cannot be pruned"):
        prune_blocks(foreign, ROWS, TARGETS, 2, 16)
