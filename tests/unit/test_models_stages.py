"""Finished stages are kept by what made them; unfinished ones leave nothing that looks finished."""

import ast
import resource
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from features.preprocess import _KEEP
from models.data import Example, Split
from models.networks import TextNet
from models.recipe import POOLINGS, QUANTIZATIONS, Recipe
from models.stages import CODE, SOURCES, USES, Stages
from tests.unit.tiny import bert, chats, fail, weights

ROWS = chats(6)
PARTS = Split(ROWS[:4], [ROWS[4]], [ROWS[5]])
RECIPE = Recipe(encoder="an/encoder")


class Count:
    """Makes 1, 2, 3, ... and counts on the way."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


def changed(value: Any) -> Any:
    for kinds in (QUANTIZATIONS, POOLINGS):
        if value in kinds:
            return kinds[-1]
    return f"{value}x" if isinstance(value, str) else value + 9 if isinstance(value, int) else value / 2 + 0.01


def test_finished_stage_is_not_made_again(tmp_path: Path) -> None:
    make = Count()
    first = Stages(tmp_path, PARTS, RECIPE)
    assert (first.run("teachers", make), first.run("teachers", make)) == (1, 1)
    again = Stages(tmp_path, replace(PARTS, train=[*reversed(PARTS.train)]), replace(RECIPE))
    assert again.run("teachers", make) == 1
    assert again.run("student", make) == 2
    assert make.made == 2


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_an_option_makes_the_stages_anew_that_use_it_and_those_after_them(tmp_path: Path, field: str) -> None:
    using = [name for name, used in USES.items() if field in used]
    assert len(using) == (field not in ("quantization", "int8_tolerance", "precision", "validation", "test"))
    expected = list(USES)[list(USES).index(using[0]) :] if using else []
    here = Stages(tmp_path, PARTS, RECIPE)
    there = Stages(tmp_path, PARTS, replace(RECIPE, **{field: changed(getattr(RECIPE, field))}))
    assert [name for name in USES if here.path(name) != there.path(name)] == expected
    assert here.folder != there.folder


def test_a_run_with_another_student_takes_over_the_teachers_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = Count()
    one, other = (Stages(tmp_path, PARTS, recipe) for recipe in (RECIPE, replace(RECIPE, student_layers=2)))
    assert [stages.run(name, make) for stages in (one, other) for name in ("teachers", "student")] == [1, 2, 1, 3]
    assert other.seconds().keys() == {"teachers", "student"}
    assert capsys.readouterr().err == f"teachers: made before, taken from {other.path('teachers')}\n"


def test_unlabelled_texts_make_anew_what_they_teach(tmp_path: Path) -> None:
    plain, more = Stages(tmp_path, PARTS, RECIPE), Stages(tmp_path, PARTS, RECIPE, unlabelled=["hm"])
    assert [name for name in USES if plain.path(name) == more.path(name)] == ["teachers"]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:3],
        [*ROWS[:4], ROWS[0]],
        [*ROWS[:3], Example(ROWS[3].text + "!", ROWS[3].product)],
        [*ROWS[:3], Example(ROWS[3].text, "another")],
        [*ROWS[:3], Example(ROWS[3].text, ROWS[3].product, ("home",))],
    ],
    ids=["fewer", "one twice", "text", "label", "context"],
)
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_other_data_make_a_stage_of_their_own(tmp_path: Path, part: str, rows: list[Example]) -> None:
    make, before, after = Count(), replace(PARTS, **{part: ROWS[:4]}), replace(PARTS, **{part: rows})
    assert [Stages(tmp_path, some, RECIPE).run("teachers", make) for some in (before, after, before)] == [1, 2, 1]


def test_the_same_data_split_in_another_way_make_stages_of_their_own(tmp_path: Path) -> None:
    here, there = Stages(tmp_path, PARTS, RECIPE), Stages(tmp_path, Split(ROWS[2:], [ROWS[0]], [ROWS[1]]), RECIPE)
    assert [name for name in USES if here.path(name) == there.path(name)] == []
    assert here.folder != there.folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder of a user's own, as far as stages look at it."""
    made = tmp_path / "encoder"
    made.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (made / name).write_text(f"content of {name}")
    return made


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize(("field", "kept"), [("encoder", []), ("student", ["teachers", "transfer"])])
def test_another_content_of_an_encoders_files_makes_its_stages_anew(
    tmp_path: Path, folder: Path, field: str, kept: list[str], name: str
) -> None:
    recipe = {"encoder": replace(RECIPE, encoder=str(folder)), "student": replace(RECIPE, student=str(folder))}[field]
    before = Stages(tmp_path / "work", PARTS, recipe)
    (folder / name).write_text(f"CONTENT of {name}")
    after = Stages(tmp_path / "work", PARTS, recipe)
    assert [stage for stage in USES if before.path(stage) == after.path(stage)] == kept
    assert before.folder != after.folder


def test_an_encoder_that_was_moved_is_the_same(tmp_path: Path, folder: Path) -> None:
    make, work = Count(), tmp_path / "work"
    assert Stages(work, PARTS, replace(RECIPE, encoder=str(folder))).run("teachers", make) == 1
    moved = folder.rename(tmp_path / "elsewhere")
    assert Stages(work, PARTS, replace(RECIPE, encoder=str(moved))).run("teachers", make) == 1
    assert Stages(work, PARTS, replace(RECIPE, encoder="elsewhere")).run("teachers", make) == 2


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers"])
def test_another_version_of_a_library_makes_every_stage_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = Stages(tmp_path, PARTS, RECIPE)
    metadata = tmp_path / "site" / f"{library}-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(metadata.parent.parent)
    after = Stages(tmp_path, PARTS, RECIPE)
    assert [name for name in USES if before.path(name) == after.path(name)] == []
    assert before.folder != after.folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the code that makes stages."""
    for source in (source for sources in SOURCES.values() for source in sources):
        (tmp_path / "code" / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CODE / source, tmp_path / "code" / source)
    return tmp_path / "code"


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("features/preprocess.py", []),
        ("models/networks.py", []),
        ("models/transfer.py", ["teachers"]),
        ("models/prune.py", ["teachers", "transfer"]),
        ("models/export.py", ["teachers", "transfer", "student", "pruned"]),
    ],
)
def test_other_code_makes_anew_what_it_makes(tmp_path: Path, code: Path, source: str, kept: list[str]) -> None:
    before, same = (Stages(tmp_path / "work", PARTS, RECIPE, code=folder) for folder in (CODE, code))
    assert [name for name in USES if before.path(name) == same.path(name)] == list(USES)
    assert before.folder == same.folder
    with (code / source).open("a") as file:
        file.write("# changed\n")
    after = Stages(tmp_path / "work", PARTS, RECIPE, code=code)
    assert [name for name in USES if before.path(name) == after.path(name)] == kept
    assert before.folder != after.folder


def test_stages_know_all_the_code_that_makes_them() -> None:
    """What their sources import, too, but for what has no say in the result."""
    known = {source for sources in SOURCES.values() for source in sources}
    imported = {
        f"{node.module.replace('.', '/')}.py"
        for source in known
        for node in ast.walk(ast.parse((CODE / source).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("features", "models")
    }
    idle = {"bundle", "classifier", "context", "data", "quantize", "recipe", "stages"}
    assert imported - known == {"features/drafts.py", *(f"models/{name}.py" for name in idle)}


def test_preprocessing_that_answers_otherwise_makes_every_stage_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of Python, which brings another table of characters."""
    before = Stages(tmp_path, PARTS, RECIPE)
    monkeypatch.setitem(_KEEP, ord("z"), None)
    after = Stages(tmp_path, PARTS, RECIPE)
    assert [name for name in USES if before.path(name) == after.path(name)] == []
    assert before.folder != after.folder


def test_two_runs_with_the_same_options_are_not_in_one_folder_at_once(tmp_path: Path) -> None:
    first, same, other = (Stages(tmp_path, PARTS, recipe) for recipe in (RECIPE, RECIPE, replace(RECIPE, seed=1)))
    with first.alone():
        with pytest.raises(BlockingIOError) as refused, same.alone():
            pass
        with other.alone():
            assert str(refused.value) == (
                f"another run with these options works in {first.folder}: wait for it, or give another --work"
            )
    with same.alone():
        assert same.folder == first.folder


def test_hidden_files_beside_an_encoder_do_not_count(tmp_path: Path, folder: Path) -> None:
    recipe = replace(RECIPE, encoder=str(folder))
    before = Stages(tmp_path / "work", PARTS, recipe).path("teachers")
    (folder / ".DS_Store").write_text("nothing of the encoder's")
    assert Stages(tmp_path / "work", PARTS, recipe).path("teachers") == before


def unsaveable() -> Callable[[], int]:
    return lambda: 1


@pytest.mark.parametrize("make", [fail, unsaveable])
def test_stage_that_failed_is_made_anew(tmp_path: Path, make: Callable[[], Any]) -> None:
    stages = Stages(tmp_path, PARTS, RECIPE)
    with pytest.raises((RuntimeError, AttributeError, TypeError)):
        stages.run("teachers", make)
    assert not list(tmp_path.glob("*.pt"))
    assert stages.seconds() == {}
    assert stages.run("teachers", lambda: 7) == 7
    assert Stages(tmp_path, PARTS, RECIPE).run("teachers", fail) == 7


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    stages = Stages(tmp_path, PARTS, RECIPE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as full:
            stages.run("teachers", lambda: torch.zeros(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(stages.path("teachers")) in str(full.value)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a stage", lambda b: b"N."]
)
def test_a_damaged_stage_is_named_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    stages = Stages(tmp_path, PARTS, RECIPE)
    stages.run("teachers", lambda: [bert()])
    path = stages.path("teachers")
    path.write_bytes(damage(path.read_bytes()))
    assert stages.run("teachers", lambda: 7) == 7
    assert capsys.readouterr().err.startswith(f"warning: {path} is damaged (")
    assert Stages(tmp_path, PARTS, RECIPE).run("teachers", fail) == 7


def test_networks_survive_the_folder(tmp_path: Path) -> None:
    made = Stages(tmp_path, PARTS, RECIPE).run("teachers", lambda: [bert(0), bert(1)])
    loaded = Stages(tmp_path, PARTS, RECIPE).run("teachers", list[TextNet])
    assert all(torch.equal(weights(one), weights(other)) for one, other in zip(made, loaded, strict=True))


def test_seconds_are_of_the_stages_that_were_made(tmp_path: Path) -> None:
    stages = Stages(tmp_path, PARTS, RECIPE)
    assert stages.seconds() == {}
    for name in ("teachers", "transfer", "teachers"):
        stages.run(name, Count())
    again = Stages(tmp_path, PARTS, RECIPE)
    again.run("teachers", Count())
    assert again.seconds() == {"teachers": stages.seconds()["teachers"]}
    assert set(stages.seconds()) == {"teachers", "transfer"}
    assert all(0 <= spent < 60 for spent in stages.seconds().values())
