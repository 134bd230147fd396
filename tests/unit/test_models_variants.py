"""The record of a run: size and quality of every network, measured as the served bundle is."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.compress import Compressed, Texts, compress
from models.data import load
from models.quantize import quantize
from models.stages import Stages
from models.targets import text_targets
from models.train import partition
from models.variants import compare_variants, parameters
from tests.unit.tiny import PRODUCTS, strange_chats
from tests.unit.tiny_run import Trained, exported, trained

NAMES = sorted(PRODUCTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def record(run: Trained) -> Any:
    return read(run.run_folder / "run.json")


def read(path: Path) -> Any:
    """JSON as other programs read it, so without NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def compressed(run: Trained) -> tuple[Texts, Compressed]:
    """The finished networks of the run, from its stages."""
    examples = load(run.data)
    parts = partition(examples, run.recipe, run.data)
    texts = Texts(*text_targets(parts.train, NAMES, 4), *text_targets(parts.validation, NAMES, 4))
    return texts, compress(texts, run.recipe, Stages(run.work, parts, run.recipe))


def test_record_describes_every_network(record: Any, run: Trained) -> None:
    networks = record["networks"]
    assert list(networks) == [
        "teacher", "student", "pruned", "int8", "static", "sparse", "sparse_int8", "teacher_fp16", "fp16",
    ]  # fmt: skip
    for name, described in networks.items():
        assert (run.run_folder / described["file"]).stat().st_size == described["bytes"]
        assert (run.run_folder / described["tokenizer"]).is_file()
        assert (described["tokenizer"] == "teacher_tokenizer.json") == name.startswith("teacher")
    assert record["version"] == run.bundle.version
    assert record["training"] == run.bundle.manifest.training
    assert record["served"] == run.bundle.manifest.metrics
    assert record["max_tokens"] == run.bundle.preprocessor.config.max_tokens


def test_every_step_makes_the_network_smaller(record: Any) -> None:
    networks = record["networks"]
    weights = [networks[name]["parameters"] for name in ("teacher", "student", "pruned")]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == 3
    assert networks["int8"]["bytes"] < networks["pruned"]["bytes"]
    assert networks["sparse"]["parameters"] == networks["pruned"]["parameters"]


def test_quality_is_that_of_the_words_on_the_rows_without_context(record: Any, run: Trained) -> None:
    served = run.bundle.manifest.metrics["clear"]
    for described in record["networks"].values():
        assert set(described["sets"]) == {"clear"}
        assert described["sets"]["clear"]["n"] == served["n"]
        assert 0 <= described["sets"]["clear"]["accuracy"] <= 1
        assert 0 <= described["sets"]["clear"]["ece"] <= 1
        assert 0 <= described["sets"]["clear"]["ood_auroc"] <= 1
    assert record["networks"]["int8"]["sets"]["clear"]["accuracy"] == served["accuracy_text_only"]


@pytest.mark.parametrize(("half", "full"), [("teacher_fp16", "teacher"), ("fp16", "pruned")])
def test_half_precision_halves_the_bytes_and_answers_alike(record: Any, half: str, full: str) -> None:
    small, large = (record["networks"][name] for name in (half, full))
    assert small["parameters"] == pytest.approx(large["parameters"], rel=0.01)
    assert 2 * small["bytes"] < 1.4 * large["bytes"]
    for key in ("accuracy", "ece", "ood_auroc"):
        assert small["sets"]["clear"][key] == pytest.approx(large["sets"]["clear"][key], abs=0.02)


COMPARISONS = ["static", "sparse", "sparse_int8"]


@pytest.mark.parametrize(
    ("steps", "served", "added"),
    [
        (["teacher", "student", "pruned"], "fp16", ["teacher_fp16"]),
        (["teacher", "student", "pruned"], None, ["teacher_fp16", "fp16"]),
        (["teacher"], "int8", ["fp16"]),
        (["teacher"], "fp16", []),
        (["teacher"], None, ["fp16"]),
    ],
)
def test_half_precision_is_made_where_a_run_lacks_it(
    run: Trained, compressed: tuple[Texts, Compressed], tmp_path: Path, steps: list[str], served: str | None,
    added: list[str],
) -> None:  # fmt: skip
    texts, whole = compressed
    networks = {name: whole.networks[name] for name in steps}
    if served:
        networks[served] = tmp_path / f"{served}.onnx"
        quantize(networks[steps[-1]], networks[served], {"int8": "dynamic"}.get(served, served), [])
    wide = whole.teacher_preprocessor
    made = Compressed(wide, whole.preprocessor if "pruned" in steps else wide, networks)
    rows = load(run.data)
    path = compare_variants(made, texts, rows, {"clear": rows[:40]}, run.bundle, tmp_path, {})
    found = read(path)["networks"]
    assert list(found) == [*networks, *COMPARISONS, *added]
    halves = [described["file"] for name, described in found.items() if name.endswith("fp16")]
    assert halves == [f"{name}.onnx" for name in found if name.endswith("fp16")]


def test_parameters_are_the_weights_of_the_network(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Less the second token type's, which is never used, and the first one's, which is part of the positions."""
    net, path = exported(tmp_path_factory.getbasetemp(), "bert")
    unused = net.encoder.embeddings.token_type_embeddings.weight.numel()
    wanted = sum(weight.numel() for weight in net.parameters()) - unused
    assert wanted <= parameters(path) <= wanted + 50


def test_a_set_without_a_row_of_any_product_is_not_measured(
    run: Trained, compressed: tuple[Texts, Compressed], tmp_path: Path
) -> None:
    """As when every message that is about a product carries a context: the clear ones are all out of scope."""
    texts, networks = compressed
    path = compare_variants(networks, texts, strange_chats(5), {"clear": strange_chats(5)}, run.bundle, tmp_path, {})
    described = read(path)["networks"]
    assert described.keys() >= networks.networks.keys()
    assert [network["sets"] for network in described.values()] == [{}] * len(described)
