"""Labelled chats in CLINC150's layout: training and validation rows, the label `oos`, what is refused and where."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import OUT_OF_SCOPE, TO_CHOOSE, TO_JUDGE, TO_TRAIN, DataError, Example, load, load_validation

PARTS = ("train", "oos_train", "val", "oos_val", "test", "oos_test")
pairs = st.lists(st.tuples(st.text(max_size=9), st.sampled_from(["loans", "travel", "oos"])).map(list), max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def write(folder: Path, content: Any, name: str = "data_full.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def examples(pairs: list[list[str]]) -> list[Example]:
    return [Example(text, OUT_OF_SCOPE if label == "oos" else label) for text, label in pairs]


@settings(max_examples=30)
@given(st.fixed_dictionaries(dict.fromkeys(PARTS, pairs)))
def test_training_and_validation_rows_are_kept_apart(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, list[list[str]]]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), content)
    if content["train"] + content["oos_train"]:
        assert load(path) == examples(content["train"] + content["oos_train"])
    else:
        with pytest.raises(DataError, match="the file holds no rows"):
            load(path)
    assert load_validation(path) == examples(content["val"] + content["oos_val"])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_label_oos_of_any_file_is_out_of_scope(tmp_path: Path, name: str) -> None:
    rows = {"a.csv": "text,category\nhi,oos\nho,loans\n", "a.jsonl": '{"text": "hi", "product": "oos"}\n'}
    found = load(write(tmp_path, rows[name].encode(), name))
    assert found[0] == Example("hi", OUT_OF_SCOPE)
    assert all(example.product == "loans" for example in found[1:])


def test_other_files_bring_no_validation_rows(tmp_path: Path) -> None:
    assert load_validation(write(tmp_path, b"text,product\nhi,loans\n", "a.csv")) == []
    assert load_validation(tmp_path) == []


def test_file_without_validation_rows_brings_none(tmp_path: Path) -> None:
    """It can be trained on like any other file: a share of its rows validates."""
    path = write(tmp_path, {"train": [["hi", "loans"]]})
    assert load(path) == [Example("hi", "loans")]
    assert load_validation(path) == []


@pytest.mark.parametrize(
    ("lists", "parts", "taken"),
    [
        (TO_TRAIN, ("train", "val", "test"), "train"),
        (TO_CHOOSE, ("train", "val", "test"), "val"),
        (TO_CHOOSE, ("train", "test"), "train"),
        (TO_JUDGE, ("train", "val", "test"), "test"),
        (TO_JUDGE, ("test",), "test"),
        (TO_JUDGE, ("oos_test", "train"), "oos_test"),
        (TO_JUDGE, ("train", "val"), "val"),
    ],
)
def test_each_use_has_lists_of_its_own(
    tmp_path: Path, lists: tuple[tuple[str, str], ...], parts: tuple[str, ...], taken: str
) -> None:
    path = write(tmp_path, {part: [[f"a text to {part}", "loans"]] for part in parts})
    assert [example.text for example in load(path, lists=lists)] == [f"a text to {taken}"]


def test_lists_without_rows_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [["hi", "loans"]], "val": [], "oos_val": [], "test": []})
    for lists in (TO_JUDGE, TO_CHOOSE, TO_TRAIN):
        assert load(path, lists=lists) == [Example("hi", "loans")]


def test_a_file_with_test_lists_alone_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected an object with the lists train and oos_train"):
        load(write(tmp_path, {"test": [["hi", "loans"]]}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"train": [', "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        ([["hi", "loans"]], "expected an object with the lists train and oos_train"),
        ({"tests": []}, "expected an object with the lists train and oos_train"),
        ({"train": [["hi", "loans"], ["ho"]]}, r"train\[1\]: expected \[text, label\]"),
        ({"train": [["hi", 5]]}, r"train\[0\]: expected \[text, label\]"),
        ({"train": [], "oos_train": ["hi"]}, r"oos_train\[0\]: expected \[text, label\]"),
        ({"train": [["hi", ""]]}, r"train\[0\]: no 'product' or 'category'"),
        ({"train": {"hi": "loans"}}, r"train"),
    ],
)
def test_unreadable_file_is_refused_by_part_and_row(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(DataError, match=rf"data_full\.json: {told}"):
        load(write(tmp_path, content))


@given(st.dictionaries(st.sampled_from(PARTS), values) | values)
def test_any_json_is_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = write(tmp_path_factory.getbasetemp(), content, "any.json")
    for read in (load, load_validation):
        try:
            found = read(path)
        except DataError as error:
            refused = str(error)
        else:
            assert all(isinstance(example, Example) for example in found)
            continue
        assert refused.startswith(str(path))
