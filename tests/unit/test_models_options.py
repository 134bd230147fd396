"""Options of the commands: none is ignored in silence, and their help tells what they take and what they default to."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.__main__ import main
from models.bundle import Bundle
from models.data import CORPUS
from models.inputs import Inputs
from models.recipe import OptionError, Recipe
from models.registry import Registry
from models.testsets import HOLDOUT
from models.train import run
from tests.unit.bundle_copies import copied, variant
from tests.unit.tiny import chats, save_encoder

CHATS = "text,category\n" + "".join(f"{row.text},{row.product}\n" for row in chats(30))
STRANGE = "text,category\nwhat a lovely song,music\nwill it rain,weather\n"
Complaint = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs a command that is refused; returns its one line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.mark.parametrize("command", [["evaluate"], ["promote", "production"]], ids=["evaluate", "promote"])
def test_strange_messages_alone_are_nothing_to_measure_on(complaint: Complaint, command: list[str]) -> None:
    told = complaint(*command, "--out-of-scope", HOLDOUT / "out_of_scope.jsonl")
    assert told == "error: --out-of-scope needs --data, rows about products to measure on with it"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--validation-data", HOLDOUT], "--validation-data has no effect on the own corpus"),
        (["--validation", "0.2"], "--validation and --test have no effect on the own corpus"),
        (["--test", "0.2"], "--validation and --test have no effect on the own corpus"),
    ],
)
def test_the_own_corpus_is_split_in_one_way_only(
    tmp_path: Path, complaint: Complaint, options: list[object], told: str
) -> None:
    assert complaint("train", "--out", tmp_path, *options).startswith(f"error: {told}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["chats.csv", "clinc.json"])
def test_a_share_beside_validation_rows_is_refused(tmp_path: Path, complaint: Complaint, name: str) -> None:
    (tmp_path / "chats.csv").write_text(CHATS)
    pairs = [[row.text, row.product] for row in chats(30)]
    (tmp_path / "clinc.json").write_text(json.dumps({"train": pairs, "val": pairs[:9]}))
    more = ["--validation-data", tmp_path / "chats.csv"] if name == "chats.csv" else []
    told = complaint("train", "--data", tmp_path / name, "--out", tmp_path, "--validation", "0.2", *more)
    assert told.startswith("error: --validation has no effect where --validation-data or --data gives such rows")


def test_unlabelled_texts_are_refused_where_no_student_learns_from_them(tmp_path: Path, complaint: Complaint) -> None:
    chats_file = tmp_path / "chats.csv"
    chats_file.write_text(CHATS)
    told = complaint(
        "train", "--data", chats_file, "--unlabelled", chats_file, "--student", "teacher", "--out", tmp_path
    )
    assert told.startswith("error: --unlabelled has no effect with --student teacher")


@pytest.mark.parametrize("option", ["--noise", "--mixtures", "--heads", "--vocabulary", "--aware-epochs", "--teachers"])
def test_what_only_a_student_takes_is_refused_without_one(tmp_path: Path, complaint: Complaint, option: str) -> None:
    (tmp_path / "chats.csv").write_text(CHATS)
    told = complaint(
        "train", "--data", tmp_path / "chats.csv", "--student", "teacher", option, "5", "--out", tmp_path / "out"
    )
    assert told.startswith(f"error: {option} has no effect with --student teacher")
    assert not (tmp_path / "out").exists()


def test_rows_to_measure_on_are_refused_where_nothing_is_measured(
    bundle: Bundle, tmp_path: Path, complaint: Complaint
) -> None:
    registry = copied(bundle, tmp_path / "bundles").parent
    told = complaint("promote", bundle.version, "--registry", registry, "--force", "--data", HOLDOUT / "clear.jsonl")
    assert told == "error: --data has no effect with --force, which measures nothing: leave one of them out"
    assert Registry(registry).names() == {}


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["promote", "production", "--force", "--tolerance", "0.1"], "--tolerance has no effect with --force"),
        (["bench", "--run", "folder", "--registry", "elsewhere"], "--registry has no effect with --run"),
    ],
)
def test_options_that_nothing_reads_are_refused(complaint: Complaint, command: list[str], told: str) -> None:
    assert complaint(*command).startswith(f"error: {told}")


@pytest.mark.parametrize("value", ["nan", "-0.1", "inf"])
def test_a_tolerance_that_compares_nothing_is_refused(complaint: Complaint, value: str) -> None:
    told = complaint("promote", "production", f"--tolerance={value}")
    assert told == f"error: --tolerance {value}: expected 0 to 1"


@pytest.mark.parametrize("student", ["layers", "scratch"])
def test_a_vocabulary_that_cannot_be_pruned_takes_no_size(tmp_path: Path, student: str) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    file = tmp_path / "encoder" / "tokenizer.json"
    state = json.loads(file.read_text())
    names = sorted(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    state["model"] = {"type": "Unigram", "unk_id": 1, "vocab": [[name, -1.0] for name in names]}
    file.write_text(json.dumps(state))
    with pytest.raises(OptionError, match="--vocabulary has no effect with the encoder's Unigram tokenizer: leave"):
        run(
            Inputs(chats(30), tmp_path / "chats.csv", chats(9, seed=1)),
            Recipe(encoder=encoder, student=student, vocabulary=99),
            tmp_path,
        )


def test_the_default_share_beside_validation_rows_is_not_meant(tmp_path: Path) -> None:
    recipe = Recipe(encoder=save_encoder(tmp_path / "encoder"), max_tokens=300)
    with pytest.raises(OptionError, match="--max-tokens 300"):
        run(Inputs(chats(30), tmp_path / "chats.csv", chats(9, seed=1)), recipe, tmp_path)


def test_strange_messages_count_as_such_whatever_their_labels(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange.csv").write_text(STRANGE)
    options = ["--data", str(HOLDOUT / "clear.jsonl"), "--out-of-scope", str(tmp_path / "strange.csv")]
    assert main(["evaluate", *options]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ood_n"] == 2
    present = variant(bundle, tmp_path / "bundles", confidence_threshold=0.5)
    registry = Registry(copied(bundle, present.parent).parent)
    registry.promote(present.name)
    assert main(["promote", bundle.version, "--registry", str(registry.folder), *options]) == 0
    assert registry.names() == {"production": bundle.version}


def test_whoever_moves_a_name_learns_what_a_running_service_does(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = variant(bundle, tmp_path / "bundles", confidence_threshold=0.5)
    registry = Registry(copied(bundle, other.parent).parent)
    registry.promote(bundle.version)
    where = ["--registry", str(registry.folder)]
    for command, version in ((["promote", other.name, "--force"], other.name), (["rollback"], bundle.version)):
        assert main([*command, *where]) == 0
        told = capsys.readouterr()
        assert told.out == f"production {version}\n"
        assert told.err.endswith(f"or deploy `model: {version}`\n")


def test_rows_too_alike_to_be_split_are_told_of(tmp_path: Path, complaint: Complaint) -> None:
    rows = [
        f"{text} {number},{text.split()[-1]}" for text in ("block my card", "repay my loan") for number in range(30)
    ]
    (tmp_path / "chats.csv").write_text("\n".join(["text,product", *rows]))
    told = complaint("train", "--data", tmp_path / "chats.csv", "--out", tmp_path, "--encoder", tmp_path / "nowhere")
    assert told.startswith("error: 60 training and 0 validation rows, since nearly equal ones stay together: ")


def test_strange_messages_train_no_product_whatever_their_labels(tmp_path: Path, complaint: Complaint) -> None:
    """So validation rows with such a label are strange to the training rows."""
    for name, content in {
        "chats.csv": CHATS,
        "strange.csv": STRANGE,
        "held.csv": CHATS + STRANGE.partition("\n")[2],
    }.items():
        (tmp_path / name).write_text(content)
    files = {"data": "chats.csv", "out-of-scope": "strange.csv", "validation-data": "held.csv"}
    options = [word for option, name in files.items() for word in (f"--{option}", tmp_path / name)]
    told = complaint("train", *options, "--out", tmp_path, "--encoder", tmp_path / "nowhere")
    assert told.startswith("error: validation rows have labels that no training row has: music, weather: ")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "train",
            [f"--data FILE labelled chats: CSV, JSONL, CLINC150's JSON or a folder of JSONL (default: {CORPUS})"],
        ),
        (
            "train",
            ["--teachers N ", "are averaged (default: 3)", "--smoothing X ", "--noise N ", "at most 192 (default: 0)"],
        ),
        ("evaluate", ["--bundle BUNDLE bundle: path, version or name (default: production)", "--plots DIR "]),
        (
            "bench",
            ["[--bundle BUNDLE | --run DIR]", "--rounds N timed runs for each network and batch size (default: 200)"],
        ),
        ("report", ["--page FILE ", "docs/models.md)"]),
        (
            "promote",
            [
                "--tolerance X how much worse the bundle may be (default: 0.005)",
                "worse or not comparable --registry DIR",
            ],
        ),
        ("rollback", ["point a name at its previous version again", "(default: production)"]),
        ("list", ["bundles and names of the registry", "--registry DIR "]),
    ],
)
def test_help_tells_what_an_option_takes_and_its_default(
    command: str, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [words for words in told if words not in shown] == []
    assert "(default: None)" not in shown
    assert "(default: [])" not in shown


@pytest.mark.parametrize(
    ("given", "option", "reason"),
    [
        (["--quantization", "fp16", "--aware-epochs", "3"], "--aware-epochs", "--quantization fp16"),
        (["--aware-epochs", "0", "--int8-tolerance", "5"], "--int8-tolerance", "--aware-epochs 0"),
        (["--quantization", "none", "--int8-tolerance", "5"], "--int8-tolerance", "--quantization none"),
        (["--student", "another/encoder", "--student-layers", "2"], "--student-layers", "--student another/encoder"),
    ],
)
def test_options_of_what_is_not_done_are_refused(
    tmp_path: Path, complaint: Complaint, given: list[object], option: str, reason: str
) -> None:
    told = complaint("train", "--out", tmp_path / "out", *given)
    assert told.startswith(f"error: {option} has no effect with {reason}")
