"""Every field of the recipe is an option of the command line, and says what it does."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from models.__main__ import main
from models.quantize import quantize
from models.recipe import Recipe


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


def test_recipe_does_not_change_under_way() -> None:
    with pytest.raises(FrozenInstanceError):
        Recipe().teachers = 3  # type: ignore[misc]


def test_text_of_the_option_names_every_kind_of_quantization(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        quantize(tmp_path / "a", tmp_path / "b", "other", [])
    kinds = re.findall(r"'(\w+)'", str(refused.value).split("expected")[1])
    (told,) = [field.metadata["help"] for field in fields(Recipe) if field.name == "quantization"]
    assert set(kinds) == set(re.findall(r"'(\w+)'", told)) == {"dynamic", "static", "fp16", "none"}
