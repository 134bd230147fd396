"""`training-set` and `skew` compute with the limits of the store that they are told."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.bundled import bundled_preprocessor
from features.schema import UserFeatures
from tests.serve.batch.commands import features
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
def test_limits(world: Path, limits: list[str], screens: list[str]) -> None:
    logs: list[str | Path] = ["--events", world / "usage", "--screens", world / "screens", *limits]
    done = features("training-set", "--chats", world / "chats.jsonl", "--out", world / "set.jsonl", *logs)
    assert done.returncode == 0, done.stderr
    assert json.loads((world / "set.jsonl").read_text())["recent_screens"] == screens
    row = served_row("r1", "ana", UserFeatures(tuple(screens)), "hi", bundled_preprocessor())
    done = features("skew", "--log", write_log(world / "served", [row]), *logs)
    assert done.returncode == 0, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (counts["compared"], counts["mismatches"]) == (1, 0)
