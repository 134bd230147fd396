"""Imports point one way, serving needs no training library, and files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = ["features", "models", "deployments", "graph"]
"""Each may import itself and those before it."""
TRAINING_LIBRARIES = {"torch", "transformers", "onnx", "onnxscript", "matplotlib"}
CODE = [*ORDER[:-1], "loadtests", "scripts", "tests"]
FILES = sorted([ROOT / "graph.py", *(path for folder in CODE for path in (ROOT / folder).rglob("*.py"))])


def files_of(layer: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] in (layer, f"{layer}.py")]


def packages(source: str) -> set[str]:
    """The top-level packages that a source imports, wherever in it; relative imports stay in their own."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    return names


def imported(path: Path) -> set[str]:
    return packages(path.read_text(encoding="utf-8"))


def test_imports_are_found_in_every_form() -> None:
    source = "import a.b as c, d\nfrom e.f import g\nfrom . import h\ndef lazy():\n    from i import j\n"
    assert packages(source) == {"a", "d", "e", "i"}


@pytest.mark.parametrize("layer", ORDER)
def test_imports_point_one_way(layer: str) -> None:
    later = set(ORDER[ORDER.index(layer) + 1 :]) | {"loadtests", "scripts", "tests"}
    files = files_of(layer)
    assert files
    assert {str(path.relative_to(ROOT)): wrong for path in files if (wrong := imported(path) & later)} == {}


def test_load_tests_speak_http_only() -> None:
    """But for the service by hand, what checks answers offline, fills the store or tells what was measured."""
    names = ("baseline/app.py", "check.py", "conditions.py", "population.py")
    shared = {ROOT / "loadtests" / name for name in names}
    files = files_of("loadtests")
    assert shared < set(files)
    refused = {path: {*ORDER, "tests"} - ({"features", "models"} if path in shared else set()) for path in files}
    assert {path.name: wrong for path in files if (wrong := imported(path) & refused[path])} == {}


@pytest.mark.parametrize(
    "serving",
    [
        "import graph",
        "import features.__main__, models.__main__, models.evaluate",
        "from models.registry import Registry; b = Registry().load('production'); b.classifier(); b.context",
    ],
)
def test_serving_loads_no_training_library(serving: str) -> None:
    script = f"import sys; {serving}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "numpy" in loaded
    assert loaded & TRAINING_LIBRARIES == set()


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [path for path in FILES if drawers & set(path.relative_to(ROOT).with_suffix("").parts)] == []


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_tests_replace_nothing_in_the_code() -> None:
    forbidden = ("mock" + ".patch", "monkeypatch" + ".setattr", "unittest" + ".mock")
    tests = files_of("tests")
    assert {path.name: f for path in tests for f in forbidden if f in path.read_text(encoding="utf-8")} == {}
