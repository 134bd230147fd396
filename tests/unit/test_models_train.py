"""Training end to end on tiny encoders: what the bundle is, tells and answers; data that cannot be trained on."""

import fcntl
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from models.__main__ import main
from models.bundle import Bundle
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, digest, load, split
from models.evaluate import evaluate
from models.inputs import Inputs
from models.recipe import Recipe
from models.testsets import test_sets as sets_of
from models.train import partition, provenance
from models.train import run as train
from tests.unit.tiny import PRODUCTS, chats, save_encoder, strange_chats, with_contexts
from tests.unit.tiny_run import Trained, trained

NAMES = tuple(sorted(PRODUCTS))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.getbasetemp())


def test_bundle_loads_and_answers_as_its_manifest_tells(run: Trained) -> None:
    bundle = Bundle(run.out / run.bundle.version)
    examples = load(run.data)
    sets = sets_of(partition(examples, run.recipe, run.data), run.data)
    assert set(sets) == {"clear", "ambiguous", "misleading"}
    assert {name: evaluate(bundle, rows) for name, rows in sets.items()} == bundle.manifest.metrics
    assert bundle.manifest.labels == NAMES
    assert bundle.manifest.out_of_scope
    assert bundle.classifier().outputs == 4


def test_context_settles_messages_whose_words_do_not(run: Trained) -> None:
    figures = run.bundle.manifest.metrics["ambiguous"]
    assert figures["accuracy_context_only"] == 1.0
    assert figures["accuracy_text_only"] < 0.7 < 0.9 <= figures["accuracy"]


def test_bundle_serves_the_last_network_of_the_run(run: Trained) -> None:
    served = (run.bundle.path / "text.onnx").read_bytes()
    assert served == (run.run_folder / "int8.onnx").read_bytes()
    assert (run.bundle.path / "tokenizer.json").read_bytes() == (run.run_folder / "tokenizer.json").read_bytes()


def test_nothing_tells_a_path_of_this_machine(run: Trained) -> None:
    told = run.bundle.manifest.training
    assert told["recipe"]["encoder"] == "tiny-encoder"
    assert told["data"] == "chats.jsonl"
    for path in [*run.bundle.path.iterdir(), run.run_folder / "run.json"]:
        content = path.read_bytes()
        assert str(run.data.parent).encode() not in content
        assert str(Path.cwd()).encode() not in content


def test_provenance_is_enough_to_train_again(run: Trained) -> None:
    told = run.bundle.manifest.training
    wanted = replace(run.recipe, encoder="tiny-encoder")
    assert Recipe(**told["recipe"]) == wanted
    assert told["rows"] == 210
    assert 0 < told["calibration"]["rows"] < 210
    assert told["data_sha256"] == digest(load(run.data))
    assert told["libraries"]["torch"] == version("torch")


def test_provenance_keeps_a_hub_id_whole_and_of_a_folder_its_name(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    recipe = Recipe(encoder="someone/an-encoder", student=f"{tmp_path}/own/")
    told = provenance(Inputs(chats(3), Path("chats.csv")), recipe, 1.0, {})["recipe"]
    assert (told["encoder"], told["student"]) == ("someone/an-encoder", "own")


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csv")
    save_encoder(folder / "encoder", num_hidden_layers=1)
    rows = [f'"{row.text}",{row.product}\r\n' for row in chats(60)]
    (folder / "chats.csv").write_text("".join(["text,category\r\n", *rows]))
    return folder / "chats.csv"


def command(csv: Path, *more: str) -> list[str]:
    folder = csv.parent
    options = f"--encoder {folder}/encoder --out {folder}/bundles --work {folder}/work --student teacher"
    recipe = "--teacher-epochs 1 --quantization none --validation 0.3"
    return ["train", "--data", str(csv), *options.split(), *recipe.split(), *more]


@pytest.fixture(scope="module")
def first(csv: Path) -> str:
    """The version of the bundle that the command line made."""
    assert main(command(csv)) == 0
    (path,) = (csv.parent / "bundles").iterdir()
    return path.name


def test_a_teacher_that_is_served_whole_is_the_only_one(csv: Path, first: str) -> None:
    (path,) = (csv.parent / "work").glob("teachers-*.pt")
    assert len(torch.load(path, weights_only=False)["made"]) == 1
    assert Bundle(csv.parent / "bundles" / first).manifest.training["recipe"]["teachers"] == 1


def test_command_trains_on_a_small_csv(csv: Path, first: str) -> None:
    bundle = Bundle(csv.parent / "bundles" / first)
    assert bundle.manifest.training["recipe"]["encoder"] == "encoder"
    assert bundle.context.screen_names == ()
    assert set(bundle.manifest.metrics) == {"validation_clear"}
    assert bundle.classifier()(bundle.preprocessor.tokens(["card declined", ""])).shape == (2, 3)


def test_same_command_goes_on_from_finished_stages(csv: Path, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (csv.parent / "work").glob("*.pt")}
    assert main(command(csv)) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["version"] == first
    assert {"run.json", "teacher.onnx", "tokenizer.json"} <= {path.name for path in Path(answer["run"]).iterdir()}
    assert main(["bench", "--run", answer["run"], "--rounds", "1", "--tokens", "8"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (csv.parent / "work").glob("*.pt")} == before != {}


def test_a_second_run_with_the_same_options_is_refused_meanwhile(
    csv: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = (path for path in (csv.parent / "work").iterdir() if path.is_dir())
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command(csv)) == 2
    told = f"another run with these options works in {folder}: wait for it, or give another --work"
    assert capsys.readouterr().err == f"error: {told}\n"


def test_manifest_names_every_file_of_the_run(csv: Path, first: str) -> None:
    told = Bundle(csv.parent / "bundles" / first).manifest.training
    assert told["inputs"] == {"data": [{"file": "chats.csv", "sha256": digest(load(csv))}]}
    assert told["data_sha256"] == digest(load(csv))


def test_unlabelled_texts_are_labelled_for_the_student(csv: Path, first: str) -> None:
    more = csv.parent / "more.jsonl"
    more.write_text(json.dumps({"text": "a message that nobody labelled"}) + "\n")
    student = (
        "--teachers 1 --student layers --student-layers 1 --student-epochs 1 --recovery-epochs 1 --noise 0 --mixtures 0"
    )
    assert main(command(csv, "--unlabelled", str(more), *student.split())) == 0
    (path,) = (csv.parent / "work").glob("transfer-*.pt")
    assert torch.load(path, weights_only=False)["made"].texts[-1] == "a message that nobody labelled"


def test_a_bundle_that_would_route_nothing_is_warned_of(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = csv.parent / "held.csv"
    held.write_text("".join(["text,category\n", *(f"about after again,{name}\n" for name in NAMES)]))
    assert main(command(csv, "--validation", "0.06", "--validation-data", str(held))) == 0
    told = capsys.readouterr()
    assert "\nwarning: 0 of 3 calibration rows would be routed to a product, all others go" in told.err
    answer = json.loads(told.out.splitlines()[-1])
    assert Bundle(Path(answer["path"])).manifest.training["calibration"]["routed"] == 0


def test_data_without_validation_rows_are_refused_at_once(csv: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        encoder=str(csv.parent / "encoder"), teachers=1, teacher_epochs=1, student="teacher", validation=0.0
    )
    with pytest.raises(DataError, match="validation"):
        train(Inputs(chats(6), csv), recipe, tmp_path)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([Example("hm", "zebras"), Example("hi", NAMES[0])], "no training row has: zebras"),
        ([Example("hm", OUT_OF_SCOPE), Example("hi", NAMES[0])], "no training row has: out_of_scope"),
    ],
)
def test_validation_labels_that_training_lacks_are_refused_before_anything_is_trained(
    csv: Path, tmp_path: Path, held: list[Example], message: str
) -> None:
    recipe = Recipe(encoder=str(csv.parent / "encoder"), teachers=1, teacher_epochs=1, student="teacher")
    with pytest.raises(DataError, match=message):
        train(Inputs(chats(30), csv, held), recipe, tmp_path)


def test_validation_rows_without_a_product_are_refused_before_anything_is_trained(csv: Path, tmp_path: Path) -> None:
    recipe = Recipe(encoder=str(csv.parent / "encoder"), teachers=1, teacher_epochs=1, student="teacher")
    with pytest.raises(DataError, match="every validation row is out of scope"):
        train(Inputs([*chats(30), *strange_chats(9)], csv, strange_chats(3)), recipe, tmp_path)


def nearly_equal(number: int) -> list[Example]:
    """Three messages that a split never tears apart."""
    return [Example(f"an unusual question, the {number}th of its kind{'!' * i}", "rare") for i in range(3)]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_label_that_the_split_took_from_training_is_refused_before_anything_is_trained(
    csv: Path, tmp_path: Path, part: str
) -> None:
    there = [rows for rows in map(nearly_equal, range(99)) if getattr(split(rows, 0.3, 0.3), part) == rows]
    with pytest.raises(DataError, match=f"{part} rows have labels that no training row has: rare: give more rows"):
        train(Inputs([*chats(30), *there[0]], csv), Recipe(validation=0.3, test=0.3), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [[replace(row, product="loans") for row in chats(30)], strange_chats(30)])
def test_one_label_is_nothing_to_tell_apart(csv: Path, tmp_path: Path, rows: list[Example]) -> None:
    with pytest.raises(DataError, match=f"^every training row is labelled '{rows[0].product}': give rows of another"):
        train(Inputs(rows, csv), Recipe(validation=0.3), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_contexts_that_nothing_can_scale_are_refused_before_anything_is_trained(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 training rows have contexts and no validation row"):
        train(Inputs([*chats(30), *with_contexts(60)], csv, chats(9, seed=1)), Recipe(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_given_validation_rows_take_no_share_of_the_others(csv: Path) -> None:
    rows, held = chats(60), chats(20, seed=1)
    parts = partition(rows, Recipe(test=0.3), csv, held)
    assert parts.validation == held
    assert parts.test
    assert len(parts.train) + len(parts.test) == 60


def test_own_corpus_splits_the_same_way_whatever_the_recipe_says() -> None:
    rows = chats(600)
    parts = partition(rows, Recipe(validation=0.5, test=0.4), CORPUS)
    assert len(parts.train) / len(rows) == pytest.approx(0.8, abs=0.05)
    assert len(parts.test) / len(rows) == pytest.approx(0.1, abs=0.03)
    known = {row.text for row in rows}
    assert any(row.text not in known for row in parts.validation)
    assert all(row.text in known for row in [*parts.train, *parts.test])
