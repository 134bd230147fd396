"""What the code offers is in the documentation."""

import argparse
import re
from pathlib import Path

import pytest

from features import __main__ as features
from models import __main__ as models
from tests.unit.exported_metrics import exported

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_metric_is_explained_and_there_are_no_others() -> None:
    rows = re.findall(r"^\| (`ray_switchboard_.*?) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`ray_switchboard_(\w+)", row)}
    assert explained == exported()


@pytest.mark.parametrize("parser", [features._parser(), models._parser()], ids=["features", "models"])
def test_every_command_is_in_the_changelog(parser: argparse.ArgumentParser) -> None:
    commands = re.findall(r"^    ([a-z-]+)", parser.format_help().split("options:")[0], re.MULTILINE)
    told = re.search(rf"{parser.prog} \{{([a-z,-]+)\}}", (ROOT / "CHANGELOG.md").read_text())
    assert commands
    assert told is not None
    assert sorted(commands) == sorted(told.group(1).split(","))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_has_one_running_by_line_20() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("scripts/serve") for line in lines[:20])
    assert any(line.startswith("curl") for line in lines[:20])
