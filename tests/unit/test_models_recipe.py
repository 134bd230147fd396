"""Every field of the recipe is an option of the command line, and says what it does."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from models.__main__ import main
from models.quantize import quantize
from models.recipe import OptionError, Recipe


def test_help_shows_every_option_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields(Recipe):
        assert f"--{field.name.replace('_', '-')} " in shown
        assert field.metadata["help"] in shown


def test_option_of_another_type_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "--teachers", "two"])
    assert left.value.code == 2
    assert "--teachers: invalid int value: 'two'" in capsys.readouterr().err


REFUSED: list[tuple[str, Any, str]] = [
    ("teachers", 0, "at least 1"),
    ("teacher_epochs", 0, "at least 1"),
    ("teacher_epochs", -1, "at least 1"),
    ("smoothing", 1.5, "0 to 0.9"),
    ("smoothing", -0.1, "0 to 0.9"),
    ("smoothing", float("nan"), "0 to 0.9"),
    ("balance", -1.0, "0 to 1"),
    ("balance", 2.0, "0 to 1"),
    ("student_layers", 0, "at least 1"),
    ("student_epochs", 0, "at least 1"),
    ("noise", -1, "at least 0"),
    ("mixtures", -1, "at least 0"),
    ("heads", 0, "at least 1"),
    ("neurons", 0, "at least 1"),
    ("recovery_epochs", 0, "at least 1"),
    ("vocabulary", 0, "at least 1"),
    ("max_tokens", 5, "0, or 8 to 512"),
    ("max_tokens", 513, "0, or 8 to 512"),
    ("pooling", "max", "one of cls, mean"),
    ("quantization", "foo", "one of dynamic, static, fp16, none"),
    ("int8_tolerance", float("nan"), "-100 to 100"),
    ("aware_epochs", -1, "at least 0"),
    ("precision", 2.0, "0 to 1"),
    ("validation", -0.5, "0 to 1"),
    ("test", 1.5, "0 to 1"),
    ("seed", -1, "0 to 4294967295"),
]


@pytest.mark.parametrize(("name", "value", "expected"), REFUSED)
def test_a_value_out_of_range_is_refused_by_option_and_range(
    tmp_path: Path, name: str, value: Any, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = f"--{name.replace('_', '-')} {value}: expected {expected}"
    with pytest.raises(OptionError) as refused:
        Recipe(**{name: value})
    assert str(refused.value) == reason
    typed = f"--{name.replace('_', '-')}={value}"
    assert main(["train", "--data", str(tmp_path / "absent.csv"), "--out", str(tmp_path), typed]) == 2
    assert capsys.readouterr().err == f"error: {reason}\n"


def test_every_number_has_a_range() -> None:
    names = {field.name for field in fields(Recipe) if not isinstance(field.default, str)} | {"pooling", "quantization"}
    assert {name for name, _, _ in REFUSED} == names


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0}, {"max_tokens": 8}, {"max_tokens": 512}, {"noise": 0}, {"mixtures": 0}, {"aware_epochs": 0},
        {"smoothing": 0.0}, {"balance": 1.0}, {"precision": 1.0}, {"validation": 0.0}, {"int8_tolerance": -100.0},
    ],
    ids=str,
)  # fmt: skip
def test_both_ends_of_a_range_are_in_it(values: dict[str, Any]) -> None:
    assert {name: getattr(Recipe(**values), name) for name in values} == values


@pytest.mark.parametrize(("validation", "test"), [(1.0, 0.0), (0.5, 0.5), (0.06, 0.95)])
def test_shares_that_leave_no_rows_to_train_on_are_refused(validation: float, test: float) -> None:
    with pytest.raises(OptionError) as refused:
        Recipe(validation=validation, test=test)
    assert str(refused.value).startswith(f"--validation {validation} and --test {test} leave no rows to train on")


def test_recipe_does_not_change_under_way() -> None:
    with pytest.raises(FrozenInstanceError):
        Recipe().teachers = 3  # type: ignore[misc]


def test_text_of_the_option_names_every_kind_of_quantization(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        quantize(tmp_path / "a", tmp_path / "b", "other", [])
    kinds = re.findall(r"'(\w+)'", str(refused.value).split("expected")[1])
    (told,) = [field.metadata["help"] for field in fields(Recipe) if field.name == "quantization"]
    assert {*kinds, "none"} == set(re.findall(r"'(\w+)'", told)) == {"dynamic", "static", "fp16", "none"}
