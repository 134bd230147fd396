"""The bench times every network of a run, at every batch size, as often as it is told to."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.__main__ import main
from models.bench import BATCHES, bench, machine, open_networks, read_run, round_trip, runs_on
from models.bundle import Bundle
from models.classifier import Device, open_session
from tests.unit.tiny_run import Trained, trained

KEYS = {"batch_1", "batch_8", "batch_32", "messages_per_second"}
CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.getbasetemp())


def test_folder_of_a_run_is_its_record_and_its_networks(run: Trained) -> None:
    record, paths = read_run(run.run_folder)
    assert record["version"] == run.bundle.version
    assert list(paths) == list(record["networks"])
    assert all(path.is_file() for path in paths.values())
    assert paths["int8"].read_bytes() == (run.bundle.path / "text.onnx").read_bytes()


def sane(figures: dict[str, Any], device: Device = "cpu") -> bool:
    times = [figures[f"batch_{size}"] for size in BATCHES[device]]
    best = max(size / figures[f"batch_{size}"]["p50_ms"] * 1e3 for size in BATCHES[device])
    return all(0 < time["p50_ms"] <= time["p99_ms"] for time in times) and figures["messages_per_second"] == round(best)


@pytest.mark.parametrize("rounds", [3, 12])
def test_every_network_of_a_run_is_timed_at_every_batch_size(run: Trained, rounds: int) -> None:
    """However few the rounds, and however few pieces the vocabulary has."""
    _, paths = read_run(run.run_folder)
    timed = bench(open_networks(paths, "cpu"), "cpu", tokens=8, rounds=rounds)
    assert list(timed) == list(paths)
    for figures in timed.values():
        assert set(figures) == KEYS
        assert sane(figures)


@pytest.mark.skipif(not CUDA, reason="no CUDA here")
def test_batches_on_a_gpu_are_as_large_as_the_classifier_makes_them(run: Trained) -> None:
    paths = runs_on("cuda", read_run(run.run_folder)[1])
    timed = bench(open_networks(paths, "cuda"), "cuda", tokens=8, rounds=3)
    assert list(timed) == list(paths)
    for figures in timed.values():
        assert set(figures) == KEYS | {"batch_128"}
        assert sane(figures, "cuda")
        assert all(figures[f"batch_{size}"]["copy_ms"] > 0 for size in BATCHES["cuda"])


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        ("cpu", ["teacher", "student", "pruned", "int8", "static", "sparse", "sparse_int8"]),
        ("cuda", ["teacher", "student", "pruned", "sparse", "teacher_fp16", "fp16"]),
    ],
)
def test_devices_time_the_networks_that_are_made_for_them(run: Trained, device: Device, wanted: list[str]) -> None:
    """A GPU runs no int8, and a CPU computes fp16 as it does fp32, in the same time."""
    paths = read_run(run.run_folder)[1]
    assert runs_on(device, paths) == {name: paths[name] for name in wanted}
    assert list(runs_on(device, paths)) == wanted


@pytest.mark.parametrize("size", [1, 8])
def test_what_comes_back_from_the_device_is_as_large_as_the_logits(run: Trained, size: int) -> None:
    """Copied within the CPU's memory here."""
    session = open_session(read_run(run.run_folder)[1]["int8"])
    ids = np.ones((size, 5), dtype=np.int32)
    (logits,) = session.run(None, {"ids": ids, "mask": ids})
    back = round_trip(session, ids, "cpu")()
    assert (back.shape, back.dtype) == (logits.shape, logits.dtype) == ((size, logits.shape[1]), np.float32)


def test_machine_is_told_with_its_versions() -> None:
    told = machine("cpu")
    assert "Python 3." in told
    assert "ONNX Runtime 1." in told
    assert "cores)" in told


def test_command_prints_and_saves_the_figures_of_a_run(
    run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "runs" / "tiny.json"
    told = ["--run", str(run.run_folder), "--save", str(target), "--rounds", "10", "--tokens", "8"]
    assert main(["bench", *told]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    answer, stored = json.loads(last), json.loads(target.read_text())
    assert [line.split()[0] for line in lines] == list(answer["networks"])
    assert list(answer["networks"]) == list(runs_on("cpu", read_run(run.run_folder)[1]))
    assert stored["name"] == "tiny"
    assert stored["run"]["version"] == run.bundle.version
    assert stored["bench"]["cpu"] == {key: answer[key] for key in ("machine", "tokens", "networks")}


def test_saving_without_a_run_is_refused(run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--bundle", str(run.bundle.path), "--save", str(tmp_path / "a.json"), "--rounds", "10", "--tokens", "8"]
    try:
        code: object = main(["bench", *told])
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert "--run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rounds", "0"], "--rounds 0: expected at least 1"),
        (["--rounds", "-3"], "--rounds -3: expected at least 1"),
        (["--tokens", "0"], "--tokens 0: expected 1 to {limit}"),
        (["--tokens", "128"], "--tokens 128: expected 1 to {limit}"),
    ],
)
@pytest.mark.parametrize("what", ["run", "bundle"])
def test_what_cannot_be_timed_is_one_line(
    run: Trained, bundle: Bundle, what: str, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, limit = {"run": (run.run_folder, 96), "bundle": (bundle.path, bundle.manifest.preprocessing.max_tokens)}[what]
    assert main(["bench", f"--{what}", str(path), *options]) == 2
    assert capsys.readouterr().err == f"error: {told.format(limit=limit)}\n"


@pytest.mark.parametrize(
    "record",
    [
        "{", "[]", "{}", '{"networks": {"teacher": {}}}', '{"networks": [1]}', "[" * 99999,
        '{"networks": {}, "version": "a"}', '{"networks": {}, "max_tokens": 8}',
        '{"networks": {}, "version": "a", "max_tokens": "many"}',
    ],
)  # fmt: skip
def test_a_damaged_record_of_a_run_is_one_line(tmp_path: Path, record: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(record)
    assert main(["bench", "--run", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'run.json'} is damaged (")


@pytest.mark.parametrize("content", [None, b"", b"half a network"])
def test_a_damaged_network_of_a_run_is_one_line(
    run: Trained, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(run.run_folder, tmp_path / "run")
    (folder / "static.onnx").unlink()
    if content is not None:
        (folder / "static.onnx").write_bytes(content)
    assert main(["bench", "--run", str(folder)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {folder / 'static.onnx'}: cannot be read: ")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"loads": []}', "[" * 100_000])
def test_a_file_that_cannot_be_added_to_is_refused_before_anything_is_timed(
    run: Trained, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "compare.json"
    target.write_text(content)
    assert main(["bench", "--run", str(run.run_folder), "--save", str(target)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {target}")
    assert target.read_text() == content


def test_a_run_and_bundles_at_once_are_refused(run: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "--run", str(run.run_folder), "--bundle", str(run.bundle.path)])
    assert left.value.code == 2
    assert "argument --bundle: not allowed with argument --run" in capsys.readouterr().err


@pytest.mark.skipif(CUDA, reason="there is CUDA here")
def test_a_missing_gpu_is_one_line(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--bundle", bundle.version, "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "install the extra [gpu]" in line


def test_an_encoder_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"text": f"message {i} about {p}", "product": p}) for p in ("loans", "cards") for i in range(20)]
    (tmp_path / "chats.jsonl").write_text("\n".join(rows))
    chats = str(tmp_path / "chats.jsonl")
    folder = str(tmp_path / "nowhere")
    assert main(["train", "--data", chats, "--out", str(tmp_path / "out"), "--encoder", folder]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("script", "named"),
    [("echo 'NVIDIA H200'; echo another", "NVIDIA H200, Python "), ("exit 9", "a GPU that nvidia-smi does not name, ")],
)
def test_the_card_is_named_where_nvidia_smi_works(
    script: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been timed must not be lost for want of a name."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine("cuda").startswith(named)
