"""int8 quantisation of the text network: weights per channel, activations dynamically."""

import logging
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize_int8(source: Path, target: Path, *, reduce_range: bool = True) -> None:
    """Write an int8 copy of an fp32 ONNX model.

    Args:
        reduce_range: 7-bit weights. Products of u8 activations and s8 weights saturate in 16 bits on x86
            CPUs without VNNI; seven bits do not, so a bundle answers the same on every CPU.
    """
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gather"],
        extra_options={"MatMulConstBOnly": True},
    )
