"""Export the text network to ONNX: (batch, tokens) int32 `ids` and `mask` to (batch, outputs) `logits`."""

import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

from models.networks import TextNet


def export_onnx(net: TextNet, path: Path) -> None:
    """Write the network in fp32, with layer norms and GELUs fused where ONNX Runtime knows the encoder."""
    net.eval().cpu()
    net.encoder.config._attn_implementation = "eager"
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]], dtype=torch.int32)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.int32)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (ids, mask), str(path),
            input_names=["ids", "mask"], output_names=["logits"],
            dynamic_shapes=(axes, axes), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    config = net.encoder.config
    if config.model_type == "bert":
        fused = optimizer.optimize_model(
            str(path), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size,
            optimization_options=FusionOptions("bert"), opt_level=0,
        )  # fmt: skip
        fused.save_model_to_file(str(path))
    model = onnx.load(str(path))
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.save(model, str(path))
