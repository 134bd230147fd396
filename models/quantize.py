"""Smaller copies of the text network: int8, with activations scaled by each run or by calibration rows, or fp16."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from features.preprocess import Ids

OPERATORS = ["MatMul", "Gather"]


def quantize(source: Path, target: Path, kind: str, calibration: Sequence[Ids]) -> None:
    """Write a smaller copy of an fp32 ONNX model.

    Args:
        kind: `dynamic` int8 takes the range of activations from each run, `static` once from the calibration rows;
            `fp16` halves every number, for GPUs.
        calibration: token vectors, for `static` only.

    Raises:
        ValueError: another kind.
        OSError: the disk is full.
    """
    if kind == "dynamic":
        with _without_advice(), _whole_copies(source):
            quantize_int8(source, target)
    elif kind == "static":
        with _without_advice(), _whole_copies(source):
            quantize_static_int8(source, target, calibration)
    elif kind == "fp16":
        onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(target))
    else:
        raise ValueError(f"quantization {kind!r}: expected 'dynamic', 'static' or 'fp16'")


def quantize_int8(source: Path, target: Path) -> None:
    """Write an int8 copy whose activations are quantised by the range of each run.

    Weights have seven bits (`reduce_range`): products of u8 activations and s8 weights saturate in 16 bits on x86 CPUs
    without VNNI; with seven bits they do not, so a bundle answers the same on every CPU.
    """
    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=OPERATORS,
        extra_options={"MatMulConstBOnly": True},
    )


def quantize_static_int8(source: Path, target: Path, calibration: Sequence[Ids]) -> None:
    """Write an int8 copy whose activations have fixed ranges, those of the calibration rows."""
    quantize_static(
        source,
        target,
        _Rows(calibration),
        quant_format=QuantFormat.QOperator,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=OPERATORS,
        extra_options={"MatMulConstBOnly": True},
    )


def sparsify(source: Path, target: Path, share: float) -> None:
    """Write a copy with the smallest weights of every matrix zero: unstructured sparsity, for comparison only."""
    model = onnx.load(str(source))
    matrices = {name for node in model.graph.node if node.op_type in ("MatMul", "Gemm") for name in node.input}
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.name in matrices:
            weight = numpy_helper.to_array(tensor).copy()
            weight[np.abs(weight) <= np.quantile(np.abs(weight), share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, str(target))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep ONNX Runtime's advice to pre-process models, which these do not need, out of the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _whole_copies(source: Path) -> Iterator[None]:
    """Report a full disk, on which ONNX Runtime's own copy of the source, `…-inferred.onnx`, is cut short without an
    error before it is read; and delete that copy."""
    try:
        yield
    except (DecodeError, ValueError) as error:
        if isinstance(error, ValueError) and "ai.onnx domain" not in str(error):  # an empty file has none
            raise
        raise OSError(f"{source.parent}: a copy of {source.name} was cut short: is the disk full?") from None
    finally:
        source.with_stem(f"{source.stem}-inferred").unlink(missing_ok=True)


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, rows: Sequence[Ids]) -> None:
        self._rows: Iterator[Ids] = iter(rows)

    def get_next(self) -> dict[str, Any] | None:
        row = next(self._rows, None)
        return None if row is None else {"ids": row[None], "mask": np.ones((1, len(row)), np.int32)}
