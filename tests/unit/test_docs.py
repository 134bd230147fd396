"""What the code offers is in the documentation."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from features import __main__ as features
from models import __main__ as models

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def _exported() -> set[str]:
    """Names that the code exports, as Prometheus has them: keys in what its methods `counts` and `levels` return."""
    names = set()
    for path in [*ROOT.glob("deployments/*.py"), *ROOT.glob("features/*.py")]:
        for method in ast.walk(ast.parse(path.read_text())):
            if isinstance(method, ast.FunctionDef) and method.name in ("counts", "levels"):
                found = {name for node in ast.walk(method) for name in _keys(node)}
                names |= {name.removesuffix("_total") + "_total" if method.name == "counts" else name for name in found}
    return names


def _keys(node: ast.AST) -> Iterator[str]:
    keys: list[ast.expr | None] = (
        node.keys if isinstance(node, ast.Dict) else [node.key] if isinstance(node, ast.DictComp) else []
    )
    for key in keys:
        name = key.elts[0] if isinstance(key, ast.Tuple) else key
        if isinstance(name, ast.Constant):
            yield str(name.value)


def test_every_metric_is_explained_and_there_are_no_others() -> None:
    rows = re.findall(r"^\| (`ray_switchboard_.*?) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`ray_switchboard_(\w+)", row)}
    assert explained == _exported()


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
