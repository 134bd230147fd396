"""Export the text network to ONNX: (batch, tokens) int32 `ids` and `mask` to (batch, outputs) `logits`."""

import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from models.blocks import UnknownEncoder, blocks, layer_stack
from models.classifier import TextClassifier
from models.networks import TextNet, load_encoder

FAMILIES = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Model types whose networks are known to export."""


def export_onnx(net: TextNet, path: Path) -> None:
    """Write the network in fp32; for BERT with one node for attention and one for query, key and value."""
    net = net.eval().cpu()
    net.encoder.config._attn_implementation = "eager"
    module = FusedBert(net) if is_fused(net) else net
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]], dtype=torch.int32)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.int32)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (ids, mask), str(path),
            input_names=["ids", "mask"], output_names=["logits"],
            dynamic_shapes=(axes, axes), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    _without_notes(path)


def require_exportable(name: str) -> None:
    """Refuse, before hours of training, an encoder whose networks could not be served.

    Encoders of `FAMILIES` can; of others a network is exported and run, which takes some seconds.

    Raises:
        OptionError: the encoder cannot be loaded.
        UnknownEncoder: its networks do not run on token ids and a mask alone, or cannot be exported.
    """
    encoder, _ = load_encoder(name)
    family = encoder.config.model_type
    if family in FAMILIES:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trial.onnx"
        try:
            export_onnx(TextNet(encoder, 2), path)
            TextClassifier(path)([np.array([1, 2, 3], np.int32), np.array([1], np.int32)])
        except Exception as error:  # the exporter fails in any way
            raise UnknownEncoder(
                f"encoder {name}: networks of the family {family} cannot be exported to ONNX "
                f"({type(error).__name__}): give a BERT-like or DistilBERT encoder"
            ) from error


def computes_first_only(net: TextNet) -> bool:
    """Whether the last layer of the exported network computes for the first token only."""
    return is_fused(net) and net.pooling == "cls"


def is_fused(net: TextNet) -> bool:
    """Whether the network is exported as a `FusedBert`."""
    return bool(net.encoder.config.model_type == "bert")


class FusedBert(nn.Module):
    """A BERT text network as ONNX Runtime likes it; only for export.

    Same weights and answers as the network, but query, key and value are one matrix product, attention is ONNX
    Runtime's `MultiHeadAttention`, and the only token type is part of the positions: 41 nodes instead of 114 for
    three layers. With pooling `cls`, the last layer computes for the first token only.
    """

    def __init__(self, net: TextNet) -> None:
        super().__init__()
        self.net = net
        table: Any = net.encoder.embeddings
        self.positions = nn.Parameter(table.position_embeddings.weight + table.token_type_embeddings.weight[0])
        self.blocks = list(blocks(net.encoder))
        self.first_only = computes_first_only(net)
        parts = [[block.query, block.key, block.value] for block in self.blocks]
        if self.first_only:
            del parts[-1][0]
        self.joined = nn.ModuleList(_joined(*linears) for linears in parts)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, tokens) int32 ids and mask to (batch, outputs) logits."""
        encoder = self.net.encoder
        words = encoder.embeddings.word_embeddings(ids)
        hidden = encoder.embeddings.LayerNorm(words + self.positions[: ids.shape[1]])
        layers: Any = layer_stack(encoder)
        for layer, block, joined in zip(layers, self.blocks, self.joined, strict=True):
            if self.first_only and layer is layers[-1]:
                key, value = joined(hidden).chunk(2, dim=-1)
                hidden = hidden[:, :1]
                query = block.query(hidden)
            else:
                query, key, value = joined(hidden).chunk(3, dim=-1)
            seen = _attention(query, key, value, mask, block.heads)
            hidden = layer.attention.output.LayerNorm(block.mix(seen) + hidden)
            fed = layer.intermediate.intermediate_act_fn(block.feed_in(hidden))
            hidden = layer.output.LayerNorm(block.feed_out(fed) + hidden)
        if self.first_only:
            return cast(Tensor, self.net.head(hidden.squeeze(1)))
        weight = mask.to(hidden.dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        return cast(Tensor, self.net.head((weight.unsqueeze(1) @ hidden).squeeze(1)))


def _joined(*parts: nn.Linear) -> nn.Linear:
    linear = nn.Linear(parts[0].in_features, len(parts) * parts[0].out_features)
    linear.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
    linear.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
    return linear


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention", [query, key, value, None, mask], {"num_heads": heads},
        dtype=query.dtype, shape=query.shape, version=1,
    )  # fmt: skip


def _without_notes(path: Path) -> None:
    """Drop the exporter's metadata, a third of the file, with paths of this machine.

    The recorded shapes of weights go, too: onnxruntime.quantization transposes weights, and these shapes stop it.
    """
    model = onnx.load(str(path))
    model.doc_string = ""
    weights = {tensor.name for tensor in model.graph.initializer}
    for i in reversed([i for i, value in enumerate(model.graph.value_info) if value.name in weights]):
        del model.graph.value_info[i]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.save(model, str(path))
