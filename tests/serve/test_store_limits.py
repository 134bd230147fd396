"""`training-set` and `skew` compute with the limits of the store that they are told."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.__main__ import main
from features.bundled import bundled_preprocessor
from features.schema import UserFeatures
from tests.unit.offline_world import NOON, Screen, Use, write_world
from tests.unit.served_world import served_row, write_log

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Ana saw three screens, 30, 20 and 10 seconds before her message."""
    seen = [Screen(f"e{age}", "ana", f"s{age}", NOON - timedelta(seconds=age)) for age in (30, 20, 10)]
    return write_world(tmp_path, seen, [Use("ana", "loans", NOON - timedelta(days=1))], {"ana": NOON})


@pytest.mark.parametrize(
    ("limits", "screens"),
    [(["--max-screens", "1"], ["s10"]), (["--screen-window-s", "25"], ["s20", "s10"])],
)
def test_limits(world: Path, capsys: pytest.CaptureFixture[str], limits: list[str], screens: list[str]) -> None:
    logs = ["--events", str(world / "usage"), "--screens", str(world / "screens"), "--cpus", "1", *limits]
    assert main(["training-set", "--chats", str(world / "chats.jsonl"), "--out", str(world / "set.jsonl"), *logs]) == 0
    assert json.loads((world / "set.jsonl").read_text())["recent_screens"] == screens
    row = served_row("r1", "ana", UserFeatures(tuple(screens)), "hi", bundled_preprocessor())
    assert main(["skew", "--log", str(write_log(world / "served", [row])), *logs]) == 0
    counts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (counts["compared"], counts["mismatches"]) == (1, 0)
