"""Train-serve skew, end to end: ten thousand answers of the real service, each computed again from raw events."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis

from features.journeys import Journey, journeys
from features.preprocess import Preprocessor
from features.ray_session import session
from features.schema import SCREEN_STREAM, ScreenEvent
from features.simulate import simulate
from models.registry import Registry
from tests.serve.batch.commands import cluster
from tests.serve.conftest import ROOT, Service
from tests.serve.polling import until
from tests.unit.bundle_copies import variant

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""
USERS, REQUESTS, CLIENTS = 300, 10_000, 64
EVENTS_A_SECOND = 200


def features(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command of `python -m features`; its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "features", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Browsing:
    """Users who see screens until told to stop; what they saw is kept as an archive."""

    def __init__(self, url: str) -> None:
        self.seen: list[ScreenEvent] = []
        self._redis = redis.Redis.from_url(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Browsing":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._redis.close()

    def _run(self) -> None:
        for number, (user, screen) in enumerate(_screens(journeys(USERS, seed=7))):
            if self._over.wait(1 / EVENTS_A_SECOND):
                return
            event = ScreenEvent(f"e{number}", user, screen, datetime.now(UTC))
            fields: dict[Any, Any] = dict(event.fields())
            self._redis.xadd(SCREEN_STREAM, fields)
            self.seen.append(event)

    def archive(self, folder: Path) -> Path:
        """The screens as day-partitioned Parquet."""
        for day in {event.at.date() for event in self.seen}:
            rows = [e for e in self.seen if e.at.date() == day]
            columns = {name: [getattr(e, name) for e in rows] for name in ("event_id", "user_id", "screen", "at")}
            (folder / f"day={day}").mkdir(parents=True)
            pq.write_table(pa.table(columns), folder / f"day={day}" / "screens.parquet")
        return folder


def _screens(people: Iterator[Journey]) -> Iterator[tuple[str, str]]:
    for journey in people:
        for _, screen in journey.screens:
            yield journey.user_id, screen


def load(service: Service, folder: Path) -> None:
    """Ten thousand messages from the simulated users, by the load generator."""
    asked = islice(((j.user_id, j.text) for j in journeys(USERS, seed=8) if j.text), REQUESTS)
    bodies = folder / "bodies.jsonl"
    lines = [json.dumps({"user_id": u, "text": t, "request_id": f"skew-{i}"}) for i, (u, t) in enumerate(asked)]
    bodies.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.load", "--port", str(service.http.base_url.port), "--bodies", str(bodies),
         "--clients", str(CLIENTS), "--seconds", "300", "--warm-up", "0"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["statuses"] == {"200": REQUESTS}


def own_rows(log: Path, folder: Path) -> Path:
    """The answers to this module's messages; other tests ask the same service."""
    for file in log.rglob("served-*.parquet"):
        table = pq.ParquetFile(file).read()
        target = folder / file.relative_to(log)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pc.starts_with(table["request_id"], "skew-")), target)
    return folder


@pytest.fixture(scope="module")
def on_ray() -> Iterator[list[str]]:
    """The options that spare each command a Ray of its own."""
    with session(cpus=2):
        yield cluster()


@pytest.fixture(scope="module")
def served(service: Service, on_ray: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A world in which ten thousand messages were answered: the options that tell `skew` where."""
    folder = tmp_path_factory.mktemp("world")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    simulate(folder, users=USERS, days=61, end=tomorrow, messages=1, progress=False)
    events = str(folder / "usage")
    run = features("materialize", "--events", events, "--redis-url", service.redis.url, *on_ray)["run"]
    with Browsing(service.redis.url) as browsing:
        load(service, folder)
    screens = browsing.archive(folder / "screens-seen")

    def logged() -> int:
        files = service.log.rglob("served-*.parquet")
        return sum(pq.ParquetFile(file).read()["usage_run"].to_pylist().count(run) for file in files)

    until(logged, lambda rows: rows >= REQUESTS, timeout_s=300)
    return (
        "--log",
        str(own_rows(service.log, folder / "log")),
        "--events",
        events,
        "--screens",
        str(screens),
        "--lag-ms",
        "5000",
        *on_ray,
    )


def test_ten_thousand_answers_hold_no_skew(served: tuple[str, ...]) -> None:
    report = features("skew", *served)
    assert report["compared"] >= REQUESTS
    assert report["mismatches"] == 0, report
    assert report["texts"] >= REQUESTS
    assert report["lagging"] < REQUESTS / 2


def test_another_preprocessing_is_caught(served: tuple[str, ...], tmp_path: Path) -> None:
    """Somebody changes the preprocessing after the service has started."""
    served_by = Registry().load("production")
    config = served_by.manifest.preprocessing.model_copy(update={"max_screens": 2})
    other = Preprocessor(config, served_by.preprocessor.tokenizer)
    bundle = variant(served_by, tmp_path, preprocessing=config, fingerprint=other.fingerprint)
    report = features("skew", *served, "--bundle", str(bundle), code=1)
    assert report["by_feature"]["preprocessing"] == report["compared"] >= REQUESTS
    assert report["by_feature"]["recent_screens"] == 0


def test_a_lost_event_is_caught(served: tuple[str, ...], tmp_path: Path) -> None:
    """An archive that lacks a screen, or a service that has seen one too many: the same difference."""
    screens = Path(served[served.index("--screens") + 1])
    for file in screens.rglob("*.parquet"):
        target = tmp_path / file.relative_to(screens)
        target.parent.mkdir()
        table = pq.read_table(file)
        pq.write_table(table.filter(pa.array([number % 10 > 0 for number in range(len(table))])), target)
    report = features("skew", *served, "--screens", str(tmp_path), code=1)
    assert report["by_feature"]["recent_screens"] == report["mismatches"] > 0
