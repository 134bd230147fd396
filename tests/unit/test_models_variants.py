"""The record of a run: size and quality of every network, measured as the served bundle is."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.compress import Compressed, Texts, compress
from models.data import load
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
    assert list(networks) == ["teacher", "student", "pruned", "int8", "static", "sparse", "sparse_int8"]
    for name, described in networks.items():
        assert (run.run_folder / described["file"]).stat().st_size == described["bytes"]
        assert (run.run_folder / described["tokenizer"]).is_file()
        assert (described["tokenizer"] == "teacher_tokenizer.json") == (name == "teacher")
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


def test_parameters_are_the_weights_of_the_network(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Less the second token type's, which is never used, and the first one's, which is part of the positions."""
    net, path = exported(tmp_path_factory.getbasetemp(), "bert")
    unused = net.encoder.embeddings.token_type_embeddings.weight.numel()
    wanted = sum(weight.numel() for weight in net.parameters()) - unused
    assert wanted <= parameters(path) <= wanted + 50


def test_set_without_a_row_of_any_product_has_no_accuracy(
    run: Trained, compressed: tuple[Texts, Compressed], tmp_path: Path
) -> None:
    """As when every message that is about a product carries a context: the clear ones are all out of scope."""
    texts, networks = compressed
    path = compare_variants(networks, texts, strange_chats(5), {"clear": strange_chats(5)}, run.bundle, tmp_path, {})
    for described in read(path)["networks"].values():
        figures = described["sets"].get("clear", {"n": 0, "accuracy": None, "ood_auroc": None})
        assert (figures["n"], figures["accuracy"], figures["ood_auroc"]) == (0, None, None)
