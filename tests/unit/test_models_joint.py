"""The joint head, which is only compared with: what it learns from contexts, and on which rows it is measured."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.data import Example, Split, load
from models.joint import joint_accuracy
from models.train import partition
from tests.unit.tiny import PRODUCTS, chats, strange_chats, with_contexts
from tests.unit.tiny_run import Trained, trained

NAMES = sorted(PRODUCTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def parts(run: Trained) -> Split:
    return partition(load(run.data), run.recipe, run.data)


@pytest.fixture(scope="module")
def recorded(run: Trained) -> dict[str, Any]:
    return dict(json.loads((run.run_folder / "run.json").read_text())["joint_accuracy"])


@pytest.fixture(scope="module")
def measured(run: Trained, parts: Split) -> list[dict[str, float]]:
    """Two heads of one seed, whatever was drawn by chance before, on the same sets."""
    plain = [replace(row, recent_screens=(), product_usage_60d={}) for row in with_contexts(12)]
    strange = [replace(row, recent_screens=("never seen",), product_usage_60d={"bonds": 4}) for row in plain]
    torn = [
        replace(row, recent_screens=("loans_page", "cards_page"), product_usage_60d={}) for row in chats(600, seed=5)
    ]
    sets: dict[str, Sequence[Example]] = {
        "plain": plain, "strange": strange, "clear": strange_chats(3), "torn": torn, "more": torn + strange_chats(60)
    }  # fmt: skip
    found = []
    for drawn_before in (1, 2):
        torch.manual_seed(drawn_before)
        found.append(joint_accuracy(parts, sets, NAMES, run.bundle.preprocessor, run.bundle.classifier(), 7))
    return found


def test_record_has_the_sets_of_the_bundle(run: Trained, recorded: dict[str, Any]) -> None:
    assert set(recorded) == set(run.bundle.manifest.metrics)
    assert all(0 <= value <= 1 for value in recorded.values())


def test_head_learns_what_the_context_settles(recorded: dict[str, Any]) -> None:
    assert recorded["ambiguous"] > 0.9


def test_seed_makes_the_head_repeatable(measured: list[dict[str, float]]) -> None:
    first, second = (found["torn"] for found in measured)
    assert 0 < first == second < 1


def test_rows_out_of_scope_are_not_measured(measured: list[dict[str, float]]) -> None:
    assert measured[0]["more"] == measured[0]["torn"]


def test_unknown_screens_and_products_count_as_absent(measured: list[dict[str, float]]) -> None:
    assert measured[0]["plain"] == measured[0]["strange"]


def test_set_without_a_row_of_any_product_has_no_accuracy(measured: list[dict[str, float]]) -> None:
    assert measured[0].get("clear") is None


def screens_alone(rows: Sequence[Example], written: Callable[[str], str]) -> list[Example]:
    """The rows without usage, their screens written in another way."""
    screens = [tuple(map(written, row.recent_screens)) for row in rows]
    return [replace(row, recent_screens=seen, product_usage_60d={}) for row, seen in zip(rows, screens, strict=True)]


def test_head_knows_screens_by_the_names_that_preprocessing_gives_them(run: Trained, parts: Split) -> None:
    told, found = {"told": screens_alone(with_contexts(60, seed=3), str)}, []
    for written in (str, str.upper):
        rows = (screens_alone(part, written) for part in (parts.train, parts.validation, parts.test))
        found.append(joint_accuracy(Split(*rows), told, NAMES, run.bundle.preprocessor, run.bundle.classifier()))
    assert found[0] == found[1]
    assert found[0]["told"] > 0.9


@pytest.mark.parametrize("tested", [False, True])
def test_validation_rows_that_it_is_measured_on_are_not_learnt(run: Trained, parts: Split, tested: bool) -> None:
    """Without a test split, the figures are those of the validation rows."""
    held = screens_alone(with_contexts(60, seed=3), "only in validation: {}".format)
    sets = {"told": held, "plain": screens_alone(held, lambda screen: "")}
    given = Split(parts.train, held, parts.test if tested else [])
    found = joint_accuracy(given, sets, NAMES, run.bundle.preprocessor, run.bundle.classifier())
    assert (found["told"] > 0.9, found["told"] == found["plain"]) == (tested, not tested)
