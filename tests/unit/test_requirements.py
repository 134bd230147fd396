"""The locks say the same of what they share."""

from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"


def lock(name: str) -> set[str]:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_a_gpu_changes_onnx_runtime_and_adds_cuda_and_nothing_else() -> None:
    serve, gpu = lock("serve"), lock("gpu")
    assert {line.split("==")[0] for line in serve - gpu} == {"onnxruntime"}
    added = {line.split("==")[0] for line in gpu - serve}
    assert "onnxruntime-gpu" in added
    assert all(name.startswith("nvidia-") for name in added - {"onnxruntime-gpu"})


def test_other_locks_hold_all_of_what_serves() -> None:
    assert lock("serve") <= lock("batch") <= lock("dev")
