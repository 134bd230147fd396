"""`training-set` and `skew` on the command line."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.bundled import bundled_preprocessor
from features.schema import UserFeatures
from tests.serve.batch.commands import features
from tests.unit.offline_world import NOON, Screen, Use, screen_frame, use_frame, write_days
from tests.unit.served_world import served_row, write_log

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""
PREPROCESSOR = bundled_preprocessor()
SECRET = "my pin is swordfish"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Ana saw a screen a minute ago, somebody saw another, and Ana used a product yesterday."""
    write_days(tmp_path / "usage", use_frame([Use("ana", "loans", NOON - timedelta(days=1))]))
    users, at = ("ana", ""), NOON - timedelta(minutes=1)
    write_days(tmp_path / "screens", screen_frame([Screen("e1", user, "home", at) for user in users]))
    return tmp_path


def summary(output: str) -> dict[str, Any]:
    return dict(json.loads(output.splitlines()[-1]))


def test_training_set_from_chats(logs: Path) -> None:
    chat = {"text": "hi", "product": "loans", "user_id": "ana", "at": NOON.isoformat()}
    (logs / "chats.jsonl").write_text(json.dumps(chat))
    inputs = ("--chats", logs / "chats.jsonl", "--events", logs / "usage", "--screens", logs / "screens")
    done = features("training-set", *inputs, "--out", logs / "out.csv")
    assert done.returncode == 0, done.stderr
    counts = summary(done.stdout)
    assert [counts[name] for name in ("rows", "with_screens", "with_usage", "days_missing")] == [1, 1, 1, 59]
    assert (counts["malformed"], counts["malformed_screens"]) == (0, 1)
    assert "notice: the screen log has 1 malformed rows, which were left out\n" in done.stderr
    assert "notice: the log lacks 59 of 60 days\n" in done.stderr
    assert (logs / "out.csv").read_text().splitlines()[1].startswith('hi,loans,"[""home""]","{""loans"": 1}",ana,')


def test_skew_names_what_differs_and_shows_no_text(logs: Path) -> None:
    row = served_row("r1", "ana", UserFeatures(("home",), {"loans": 2}), SECRET, PREPROCESSOR)
    log = write_log(logs / "served", [row])
    done = features("skew", "--log", log, "--events", logs / "usage", "--screens", logs / "screens")
    assert done.returncode == 1, done.stderr
    output = done.stdout
    assert '  r1 of ana at 2026-03-02T12:00:00.000Z: served {"loans": 2}, expected {}' in output.splitlines()
    assert "swordfish" not in output
    assert summary(output)["malformed_screens"] == 1
    by_feature = summary(output)["by_feature"]
    assert {name: count for name, count in by_feature.items() if count} == {"product_usage_60d": 1}
