"""The text classifier of a bundle: token vectors to logits through ONNX Runtime, no torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from features.preprocess import Ids
from models.context import Floats

if TYPE_CHECKING:
    import onnxruntime

Device = Literal["cpu", "cuda"]
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
INT8_MARKS = (b"DynamicQuantizeLinear", b"QLinearMatMul")
SLOW_ON_CPU = ["SkipLayerNormFusion"]
"""Rewrites of ONNX Runtime that cost time there: its fused node takes 35 us, its two parts take 12 (docs/log.md)."""


class TextClassifier:
    """An ONNX Runtime session that answers batches of token vectors; thread-safe.

    Args:
        path: the `text.onnx` of a bundle.
        device: `cuda` refuses to fall back to the CPU.
        max_batch: the largest batch that one run gets; 128 on a GPU. On a CPU a run gets one row: dynamic
            quantisation scales activations by the batch's largest, so a row's logits would depend on its
            neighbours (by up to 0.45), and one row at a time costs no more.

    Raises:
        RuntimeError: see `open_session`.
    """

    def __init__(self, path: Path, *, device: Device = "cpu", threads: int = 1, max_batch: int | None = None) -> None:
        self._session = open_session(path, device, threads)
        self.outputs = int(self._session.get_outputs()[0].shape[1])
        self._max_batch = max_batch or {"cpu": 1, "cuda": 128}[device]

    def __call__(self, rows: Sequence[Ids]) -> Floats:
        """Token vectors (any lengths) to (n, outputs) float32 logits, in the same order."""
        logits = np.empty((len(rows), self.outputs), dtype=np.float32)
        for indices in length_groups([len(row) for row in rows], self._max_batch):
            longest = max(len(rows[i]) for i in indices)
            ids = np.zeros((len(indices), longest), dtype=np.int32)
            mask = np.zeros_like(ids)
            for k, i in enumerate(indices):
                ids[k, : len(rows[i])] = rows[i]
                mask[k, : len(rows[i])] = 1
            logits[indices] = cast(Floats, self._session.run(None, {"ids": ids, "mask": mask})[0])
        return logits


def require_device(device: Device, path: Path | None = None) -> None:
    """Check, without touching the device, that this installation can run on it, and the network in `path`, if given.

    Raises:
        RuntimeError: the provider is missing, or the network is int8, which a GPU cannot run.
    """
    import onnxruntime  # here, since it takes 20 MB and most processes of the graph classify nothing

    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(
            f"device {device!r} needs ONNX Runtime's {provider}, and this installation has only "
            f"{onnxruntime.get_available_providers()}: install the extra [gpu] instead of [cpu]"
        )
    if device == "cuda" and path is not None and is_int8(path):
        raise RuntimeError(f"{path} is int8, which GPUs do not run: train one with --quantization fp16")


def open_session(path: Path, device: Device = "cpu", threads: int = 1) -> "onnxruntime.InferenceSession":
    """An ONNX Runtime session on exactly the device that is asked for.

    Raises:
        RuntimeError: see `require_device`; or the device's provider does not start.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    require_device(device, path)
    if device == "cuda":
        onnxruntime.preload_dlls()  # CUDA from packages, which the system's linker does not know
    provider = PROVIDERS[device]
    disabled = SLOW_ON_CPU if device == "cpu" else []
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider], disabled_optimizers=disabled)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime could not start its {provider}: is there a working GPU and CUDA?")
    return session


def is_int8(path: Path) -> bool:
    """Whether an ONNX file holds operators of int8 arithmetic."""
    content = path.read_bytes()
    return any(mark in content for mark in INT8_MARKS)


def length_groups(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices grouped by similar length, so that padding costs little: at most a third of a group's longest."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    group: list[int] = []
    for i in order:
        if group and (len(group) == limit or lengths[i] > 1.5 * lengths[group[0]] + 2):
            yield group
            group = []
        group.append(i)
    if group:
        yield group
