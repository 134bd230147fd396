"""What a training run reads, and what its manifest says about every file."""

import json
from pathlib import Path

import pytest

from models.__main__ import main
from models.bundle import Bundle
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, digest, load
from models.inputs import Inputs, read_inputs
from models.report import section
from tests.unit.tiny import FILLERS, chats, save_encoder, strange_chats


def write(path: Path, rows: list[Example]) -> Path:
    path.write_text("".join(json.dumps({"text": row.text, "product": row.product}) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file for each option."""
    rows = {
        "data": chats(60), "may": chats(12, seed=1), "june": chats(12, seed=2), "strange": strange_chats(9),
        "held": [*chats(12, seed=3), *strange_chats(3, seed=4)], "more": [Example(" ".join(FILLERS[:6]), "any")],
    }  # fmt: skip
    return {name: write(tmp_path / f"{name}.jsonl", some) for name, some in rows.items()}


def test_own_corpus_is_read_by_default() -> None:
    assert Inputs([]).data == CORPUS


def test_every_file_goes_where_its_option_says(files: dict[str, Path]) -> None:
    inputs = read_inputs(
        files["data"], feedback=[files["may"], files["june"]], out_of_scope=files["strange"],
        validation_data=files["held"], unlabelled=files["more"],
    )  # fmt: skip
    assert inputs.examples == [row for name in ("data", "may", "june", "strange") for row in load(files[name])]
    assert {row.product for row in inputs.examples[-9:]} == {OUT_OF_SCOPE}
    assert inputs.validation == load(files["held"])
    assert inputs.unlabelled == [" ".join(FILLERS[:6])]
    assert {option: [one["file"] for one in named] for option, named in inputs.files.items()} == {
        "data": ["data.jsonl"], "feedback": ["may.jsonl", "june.jsonl"], "out_of_scope": ["strange.jsonl"],
        "validation_data": ["held.jsonl"], "unlabelled": ["more.jsonl"],
    }  # fmt: skip
    assert inputs.files["feedback"][1]["sha256"] == digest(load(files["june"]))


def test_files_that_were_not_named_are_not_told(files: dict[str, Path]) -> None:
    inputs = read_inputs(files["data"])
    assert (inputs.validation, inputs.unlabelled) == ([], [])
    assert inputs.files == {"data": [{"file": "data.jsonl", "sha256": digest(load(files["data"]))}]}


def test_validation_rows_of_the_data_file_count_for_its_digest(tmp_path: Path) -> None:
    digests = []
    for held in ("hi", "ho"):
        (tmp_path / "clinc.json").write_text(json.dumps({"train": [["a", "x"], ["b", "y"]], "val": [[held, "x"]]}))
        inputs = read_inputs(tmp_path / "clinc.json")
        assert inputs.validation == [Example(held, "x")]
        digests.append(inputs.files["data"][0]["sha256"])
    assert len(set(digests)) == 2


def test_a_file_that_cannot_be_read_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    for option in ("out_of_scope", "validation_data", "unlabelled"):
        with pytest.raises(DataError, match=r"absent\.csv: no such file"):
            read_inputs(files["data"], **{option: tmp_path / "absent.csv"})  # type: ignore[arg-type]


def test_report_prints_the_command_that_trains_again(files: dict[str, Path], tmp_path: Path) -> None:
    """But for the folders, which a manifest does not tell."""
    recipe = "--teachers 1 --teacher-epochs 1 --student layers --student-layers 1 --student-epochs 1 --noise 0 "
    recipe += "--mixtures 0 --heads 2 --neurons 32 --recovery-epochs 1"
    encoder = save_encoder(tmp_path / "encoder", num_hidden_layers=1)
    names = f"--data {files['data']} --feedback {files['may']} {files['june']} --out-of-scope {files['strange']} "
    names += f"--unlabelled {files['more']} --validation-data {files['held']}"
    out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["train", *names.split(), "--encoder", encoder, *recipe.split(), *out]) == 0
    (manifest,) = (tmp_path / "out").glob("[!.]*/manifest.json")
    assert str(tmp_path) not in manifest.read_text()
    (record,) = (tmp_path / "work").glob("*/run.json")
    lines = section({"run": json.loads(record.read_text()), "bench": {}})
    (told,) = [line.split("`")[3].split() for line in lines if line.startswith("Version")]
    told = [str(tmp_path / word) if word.endswith(".jsonl") or word == "encoder" else word for word in told]
    assert told[:3] == ["python", "-m", "models"]
    again = tmp_path / "again"
    assert main([*told[3:], "--out", str(again), "--work", str(tmp_path / "work")]) == 0
    (copy,) = again.glob("[!.]*/manifest.json")
    assert Bundle(copy.parent).version == manifest.parent.name
