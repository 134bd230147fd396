"""Finished stages are kept by what made them; unfinished ones leave nothing that looks finished."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.data import Example
from models.networks import TextNet
from models.recipe import Recipe
from models.stages import USES, Stages
from tests.unit.tiny import bert, chats, fail, weights

ROWS = chats(4)
RECIPE = Recipe()


class Count:
    """Makes 1, 2, 3, ... and counts on the way."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


def changed(value: Any) -> Any:
    return f"{value}x" if isinstance(value, str) else value + 1


def test_finished_stage_is_not_made_again(tmp_path: Path) -> None:
    make = Count()
    first = Stages(tmp_path, ROWS, RECIPE)
    assert (first.run("teachers", make), first.run("teachers", make)) == (1, 1)
    again = Stages(tmp_path, list(reversed(ROWS)), Recipe())
    assert again.run("teachers", make) == 1
    assert again.run("student", make) == 2
    assert make.made == 2


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_an_option_makes_the_stages_anew_that_use_it_and_those_after_them(tmp_path: Path, field: str) -> None:
    using = [name for name, used in USES.items() if field in used]
    assert len(using) == (field not in ("quantization", "int8_tolerance", "precision"))
    expected = list(USES)[list(USES).index(using[0]) :] if using else []
    here = Stages(tmp_path, ROWS, RECIPE)
    there = Stages(tmp_path, ROWS, replace(RECIPE, **{field: changed(getattr(RECIPE, field))}))
    assert [name for name in USES if here.path(name) != there.path(name)] == expected
    assert here.folder != there.folder


def test_a_run_with_another_student_takes_over_the_teachers_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = Count()
    one, other = (Stages(tmp_path, ROWS, recipe) for recipe in (RECIPE, replace(RECIPE, student_layers=2)))
    assert [stages.run(name, make) for stages in (one, other) for name in ("teachers", "student")] == [1, 2, 1, 3]
    assert other.seconds().keys() == {"teachers", "student"}
    assert capsys.readouterr().err == f"teachers: made before, taken from {other.path('teachers')}\n"


def test_unlabelled_texts_make_anew_what_they_teach(tmp_path: Path) -> None:
    plain, more = Stages(tmp_path, ROWS, RECIPE), Stages(tmp_path, ROWS, RECIPE, unlabelled=["hm"])
    assert [name for name in USES if plain.path(name) == more.path(name)] == ["teachers"]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:-1],
        [*ROWS, ROWS[0]],
        [*ROWS[:-1], Example(ROWS[-1].text + "!", ROWS[-1].product)],
        [*ROWS[:-1], Example(ROWS[-1].text, "another")],
        [*ROWS[:-1], Example(ROWS[-1].text, ROWS[-1].product, ("home",))],
    ],
    ids=["fewer", "one twice", "text", "label", "context"],
)
def test_other_data_make_a_stage_of_their_own(tmp_path: Path, rows: list[Example]) -> None:
    make = Count()
    assert [Stages(tmp_path, some, RECIPE).run("teachers", make) for some in (ROWS, rows, ROWS)] == [1, 2, 1]


def unsaveable() -> Callable[[], int]:
    return lambda: 1


@pytest.mark.parametrize("make", [fail, unsaveable])
def test_stage_that_failed_is_made_anew(tmp_path: Path, make: Callable[[], Any]) -> None:
    stages = Stages(tmp_path, ROWS, RECIPE)
    with pytest.raises((RuntimeError, AttributeError, TypeError)):
        stages.run("teachers", make)
    assert not list(tmp_path.glob("*.pt"))
    assert stages.seconds() == {}
    assert stages.run("teachers", lambda: 7) == 7
    assert Stages(tmp_path, ROWS, RECIPE).run("teachers", fail) == 7


def test_networks_survive_the_folder(tmp_path: Path) -> None:
    made = Stages(tmp_path, ROWS, RECIPE).run("teachers", lambda: [bert(0), bert(1)])
    loaded = Stages(tmp_path, ROWS, RECIPE).run("teachers", list[TextNet])
    assert all(torch.equal(weights(one), weights(other)) for one, other in zip(made, loaded, strict=True))


def test_seconds_are_of_the_stages_that_were_made(tmp_path: Path) -> None:
    stages = Stages(tmp_path, ROWS, RECIPE)
    assert stages.seconds() == {}
    for name in ("teachers", "transfer", "teachers"):
        stages.run(name, Count())
    again = Stages(tmp_path, ROWS, RECIPE)
    again.run("teachers", Count())
    assert again.seconds() == {"teachers": stages.seconds()["teachers"]}
    assert set(stages.seconds()) == {"teachers", "transfer"}
    assert all(0 <= spent < 60 for spent in stages.seconds().values())
