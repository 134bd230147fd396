"""Latency and throughput of text networks: ONNX Runtime on one core or on a GPU, without Ray and without torch."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tqdm import tqdm

from features.machine import processor
from models.bundle import BundleError, as_bundle_errors
from models.classifier import Device, is_int8, open_session

BATCHES: dict[Device, tuple[int, ...]] = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128)}
"""Messages in one run; 128 is the most that the classifier gives a GPU."""
WARM_UP = 20
ID_RANGE = (5, 100)
"""Range of the token ids in a message: every vocabulary has them, and the time does not depend on which they are."""
TURN = 10
"""Timed runs of one network in a row, after an untimed one that brings its weights into the cache."""


@dataclass(frozen=True, slots=True)
class TimedNetwork:
    """A network to time, with its session open on a device."""

    name: str
    session: onnxruntime.InferenceSession


def open_networks(paths: Mapping[str, Path], device: Device) -> list[TimedNetwork]:
    """Open the networks.

    Raises:
        BundleError: one is missing or damaged.
        RuntimeError: the device cannot be had, see `open_session`.
    """
    return [TimedNetwork(name, _open(path, device)) for name, path in paths.items()]


def bench(
    rivals: Sequence[TimedNetwork], device: Device, *, tokens: int = 16, rounds: int = 200, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Time every network at every batch size, taking turns, so that a busy moment hits all of them alike.

    Args:
        tokens: length of each message.
        rounds: runs of each network at each batch size.

    Returns:
        By network: `batch_1`, `batch_8`, `batch_32` and on a GPU `batch_128` with p50_ms and p99_ms of one run, on a
        GPU also copy_ms (p50 of the transfer, see `round_trip`); and messages_per_second, the best of all batch sizes.
    """
    rng = np.random.default_rng(seed)
    results: dict[str, dict[str, Any]] = {rival.name: {} for rival in rivals}
    with tqdm(total=len(BATCHES[device]) * rounds, desc=f"bench {device}", unit="round") as bar:
        for size in BATCHES[device]:
            ids = rng.integers(*ID_RANGE, (size, tokens)).astype(np.int32)
            runs = {rival.name: _run(rival.session, ids, device) for rival in rivals}
            times = _take_turns(runs, rounds, bar)
            for rival in rivals:
                copy = {"copy_ms": _copy_ms(rival.session, ids, rounds)} if device == "cuda" else {}
                results[rival.name][f"batch_{size}"] = _percentiles(times[rival.name]) | copy
    for figures in results.values():
        rates = [size / figures[f"batch_{size}"]["p50_ms"] * 1e3 for size in BATCHES[device]]
        figures["messages_per_second"] = round(max(rates))
    return results


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The record of a training run, and the ONNX file of each of its networks.

    Raises:
        BundleError: the record is damaged.
        OSError: there is none.
    """
    record = folder / "run.json"
    try:
        run = json.loads(record.read_text())
        paths = {name: folder / described["file"] for name, described in run["networks"].items()}
        if not isinstance(run["version"], str):
            raise TypeError("its version is no text")
        return run | {"max_tokens": int(run["max_tokens"])}, paths
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BundleError(f"{record} is damaged ({error}): train again with the same --work") from None


def runs_on(device: Device, paths: Mapping[str, Path]) -> dict[str, Path]:
    """The networks of a run to time on a device: on a GPU no int8; on a CPU no fp16, computed there as fp32 is."""
    if device == "cuda":
        return {name: path for name, path in paths.items() if not is_int8(path)}
    return {name: path for name, path in paths.items() if not name.endswith("fp16")}


def round_trip(session: onnxruntime.InferenceSession, ids: Any, device: Device) -> Callable[[], Any]:
    """A call that copies what one run needs to a device, and back what comes out of it.

    Args:
        ids: (batch, tokens) int32; the mask is as large.

    Returns:
        What came back, (batch, outputs) float32, as the logits are.
    """
    outputs = session.get_outputs()[0].shape[1]
    logits = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((len(ids), outputs), np.float32), device, 0)

    def copy() -> Any:
        for _ in ("ids", "mask"):
            onnxruntime.OrtValue.ortvalue_from_numpy(ids, device, 0)
        return logits.numpy()

    return copy


def machine(device: Device) -> str:
    """The processor or card, Python and ONNX Runtime, in words."""
    words = _card() if device == "cuda" else f"{processor()} ({os.cpu_count()} cores)"
    return f"{words}, Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}"


def _card() -> str:
    """The name of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        told = ""
    return told.partition("\n")[0] or "a GPU that nvidia-smi does not name"


def _open(path: Path, device: Device) -> onnxruntime.InferenceSession:
    with as_bundle_errors(f"{path}: cannot be read"):
        return open_session(path, device)


def _run(session: onnxruntime.InferenceSession, ids: Any, device: Device) -> Callable[[], Any]:
    """A call that runs once, its inputs already on the device."""
    mask = np.ones_like(ids)
    if device == "cpu":
        return lambda: session.run(None, {"ids": ids, "mask": mask})
    binding = session.io_binding()
    for name, value in (("ids", ids), ("mask", mask)):
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0))
    binding.bind_output("logits", device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _take_turns(runs: Mapping[str, Callable[[], Any]], rounds: int, bar: Any) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    for left in range(rounds, 0, -TURN):
        for name, run in runs.items():
            run()
            for _ in range(min(TURN, left)):
                begun = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - begun) * 1e3)
        bar.update(min(TURN, left))
    return times


def _copy_ms(session: onnxruntime.InferenceSession, ids: Any, rounds: int) -> float:
    copy, spent = round_trip(session, ids, "cuda"), []
    for _ in range(rounds):
        begun = time.perf_counter()
        copy()
        spent.append((time.perf_counter() - begun) * 1e3)
    return round(float(np.median(spent)), 4)


def _percentiles(spent: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": round(float(np.median(spent)), 4), "p99_ms": round(float(np.quantile(spent, 0.99)), 4)}
