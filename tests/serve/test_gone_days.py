"""A day that has left the usage log counts nowhere: not in a run, not in a training set, not where skew looks."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.batch import Window, materialize
from features.bundled import bundled_preprocessor
from features.ray_session import session
from features.schema import UserFeatures
from features.skew import skew
from features.usage import usage_key
from features.usage_writer import UsageWriter
from tests.unit.offline_world import NOON, Screen, Use, build, write_world
from tests.unit.redis_process import RedisProcess
from tests.unit.served_world import served_row, write_log

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""
PREPROCESSOR = bundled_preprocessor()
TODAY = NOON.date()


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with session(cpus=2):
        yield


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Ana used loans on each of the last three days; all were aggregated, then the second one left the log."""
    uses = [Use("ana", "loans", NOON - timedelta(days=before)) for before in (1, 2, 3)]
    world = write_world(tmp_path / "world", [Screen("e1", "ana", "home", NOON)], uses, {"ana": NOON})
    build(world, PREPROCESSOR)
    assert trained(world) == {"loans": 3}
    shutil.rmtree(world / "usage" / f"day={TODAY - timedelta(days=2)}")
    return world


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis") as server:
        yield server


def trained(world: Path) -> Any:
    """Ana's usage in the training set."""
    return json.loads((world / "set.jsonl").read_text())["product_usage_60d"]


def test_a_run_a_training_set_and_skew_agree(world: Path, server: RedisProcess) -> None:
    writer = UsageWriter(f"redis://127.0.0.1:{server.port}/0")
    run = materialize(world / "usage", Window(TODAY), writer, progress=False)["run"]
    with server.client as client:
        assert client.hget(usage_key(run, "ana"), "ana") == '{"loans":2}'
    build(world, PREPROCESSOR)
    assert trained(world) == {"loans": 2}
    row = served_row("r1", "ana", UserFeatures(("home",), {"loans": 2}), "hi", PREPROCESSOR) | {"usage_run": run}
    log = write_log(world / "served", [row])
    report = skew(log, world / "usage", world / "screens", [PREPROCESSOR], progress=False)
    assert (report.compared, report.examples, report.changed_runs) == (1, {}, [])


def test_the_next_run_deletes_what_was_kept_of_it_and_nothing_else(world: Path, server: RedisProcess) -> None:
    """The users' names go with the day; other days outside of the window stay."""
    kept, gone = world / "usage.partials", f"day={TODAY - timedelta(days=2)}"
    (kept / "quarantine").mkdir()
    (kept / "quarantine" / f"{gone}.parquet").touch()
    writer = UsageWriter(f"redis://127.0.0.1:{server.port}/0")
    summary, again = (materialize(world / "usage", Window(TODAY, 1), writer, progress=False) for _ in range(2))
    assert (summary["days_forgotten"], again["days_forgotten"]) == (1, 0)
    left = {f"day={TODAY - timedelta(days=before)}.arrow" for before in (1, 3)}
    assert {file.name for file in kept.rglob("day=*")} == left
