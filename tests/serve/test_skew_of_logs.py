"""Skew: nothing differs where serving was right, and what was wrong is found and named."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.batch import Window, materialize
from features.bundled import bundled_preprocessor
from features.preprocess import Preprocessor
from features.ray_session import session
from features.schema import UserFeatures
from features.skew import FEATURES, Report, skew
from features.store import FeatureStore, connect
from features.usage_writer import UsageWriter
from tests.unit.offline_world import screen_frame, usage_then, use_frame, write_days
from tests.unit.redis_process import RedisProcess
from tests.unit.served_world import MIDNIGHT, USERS, Row, World, preprocessed, served, write_log

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")
"""Ray Data warns of its own defaults."""
PREPROCESSOR = bundled_preprocessor()
WORLD = World.drawn(seed=1, requests=480)
TODAY = MIDNIGHT.date()
STORED_AFTER = timedelta(seconds=8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The usage log and the screen log; Ray runs."""
    folder = tmp_path_factory.mktemp("logs")
    write_days(folder / "usage", use_frame(WORLD.uses))
    write_days(folder / "screens", screen_frame(WORLD.screens))
    with session(cpus=2):
        yield folder


@pytest.fixture(scope="module")
def runs(logs: Path, server: RedisProcess) -> list[str | None]:
    """No run, that of the demo, and those of two days."""

    async def prepare() -> None:
        redis = connect(url(server), 5.0)
        await redis.flushall()
        await FeatureStore(redis).write_usage("demo", {user: {"loans": 1} for user in USERS})
        await redis.aclose()

    asyncio.run(prepare())
    writer = UsageWriter(url(server))
    windows = [Window(TODAY - timedelta(days=1)), Window(TODAY)]
    made = [materialize(logs / "usage", window, writer, publish=False, progress=False)["run"] for window in windows]
    return [None, "demo", *made]


@pytest.fixture(scope="module")
def rows(runs: list[str | None], server: RedisProcess) -> list[Row]:
    """What was served, at once."""
    return asyncio.run(served(WORLD, url(server), PREPROCESSOR, runs))


@pytest.fixture
def late_rows(rows: list[Row], runs: list[str | None], server: RedisProcess) -> list[Row]:
    """What is served while the ingester lags."""

    async def again() -> list[Row]:
        redis = connect(url(server), 5.0)
        await redis.delete("usage:run", *[f"screens:{user}" for user in USERS])
        await redis.aclose()
        return await served(WORLD, url(server), PREPROCESSOR, runs, STORED_AFTER)

    return asyncio.run(again())


def url(server: RedisProcess) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def compare(tmp_path: Path, logs: Path, rows: Sequence[Row], **options: Any) -> Report:
    log = write_log(tmp_path / "served", rows)
    preprocessors = options.pop("preprocessors", [PREPROCESSOR])
    return skew(log, logs / "usage", logs / "screens", preprocessors, examples=10_000, progress=False, **options)


def named(report: Report) -> dict[str, list[str]]:
    """The requests with a mismatch, by feature."""
    return {feature: [m.request_id for m in found] for feature, found in report.examples.items()}


class TestServing:
    def test_that_is_right_has_no_mismatch(self, tmp_path: Path, logs: Path, rows: list[Row]) -> None:
        report = compare(tmp_path, logs, rows)
        assert report.examples == {}
        assert report.by_feature == dict.fromkeys(FEATURES, 0)
        assert (report.requests, report.compared, report.mismatches, report.lagging) == (480, 480, 0, 0)
        assert (report.texts, report.unverifiable_usage, report.changed_runs) == (480, 120, [])
        assert sum(len(row["recent_screens"]) == 5 for row in rows) > 300
        assert sum(len(row["product_usage_60d"]) == 3 for row in rows) > 200

    def test_with_a_lagging_ingester_is_told_apart(self, tmp_path: Path, logs: Path, late_rows: list[Row]) -> None:
        report = compare(tmp_path / "tolerant", logs, late_rows, lag=timedelta(seconds=10))
        assert (report.mismatches, report.by_feature["recent_screens"]) == (0, 0)
        assert report.lagging > 10
        strict = compare(tmp_path / "strict", logs, late_rows, lag=timedelta())
        assert strict.by_feature == dict.fromkeys(FEATURES, 0) | {"recent_screens": report.lagging}
        assert (strict.mismatches, strict.lagging) == (report.lagging, 0)

    def test_that_is_wrong_is_named(self, tmp_path: Path, logs: Path, rows: list[Row]) -> None:
        reversible = [r for r in rows if r["recent_screens"] != r["recent_screens"][::-1]]
        with_run = [r for r in rows if str(r["usage_run"]).startswith(f"{TODAY}-60d") and yesterday(r) != usage(r)]
        long = [r for r in rows if r["tokens"] > 8]
        short = Preprocessor(PREPROCESSOR.config.model_copy(update={"max_tokens": 8}), PREPROCESSOR.tokenizer)
        wrong = {
            "screens": [changed(r, screens=r["recent_screens"][::-1]) for r in reversible[:20]],
            "no screens": [changed(r, screens=[]) for r in reversible[20:25]],
            "window": [changed(r, usage=yesterday(r)) for r in with_run[:15]],
            "limit": [r | preprocessed(r["text"], features(r), short) | fingerprint() for r in long[:12]],
            "caps": [r | {"context_hash": "0" * 16} for r in rows[:3]],
            "honest": [r | preprocessed(r["text"], features(r), short) for r in rows[:7]],
            "degraded": [changed(r, screens=[], usage={}) | degraded() for r in rows[:9]],
            "right": [r | {"text": None} for r in rows[100:200]],
        }
        log = [row | {"request_id": f"{kind} {i}"} for kind, some in wrong.items() for i, row in enumerate(some)]
        report = compare(tmp_path, logs, log)
        assert (report.requests, report.compared, report.degraded) == (171, 162, 9)
        assert report.mismatches == 20 + 5 + 15 + 12 + 3 + 7
        assert {feature: sorted(ids) for feature, ids in named(report).items()} == {
            "recent_screens": sorted(ids("screens", 20) + ids("no screens", 5)),
            "product_usage_60d": sorted(ids("window", 15)),
            "context_hash": sorted(ids("caps", 3)),
            "text_hash": sorted(ids("limit", 12)),
            "tokens": sorted(ids("limit", 12)),
            "preprocessing": sorted(ids("honest", 7)),
        }
        assert report.by_feature["unknown_tokens"] == 0
        example = report.examples["preprocessing"][0]
        assert (example.served, example.expected) == (short.fingerprint, PREPROCESSOR.fingerprint)

    def test_of_two_bundles_is_compared_with_each_ones_preprocessing(
        self, tmp_path: Path, logs: Path, rows: list[Row]
    ) -> None:
        short = Preprocessor(PREPROCESSOR.config.model_copy(update={"max_tokens": 8}), PREPROCESSOR.tokenizer)
        mixed = [*rows[:50], *(r | preprocessed(r["text"], features(r), short) for r in rows[50:100])]
        assert compare(tmp_path, logs, mixed, preprocessors=[PREPROCESSOR, short]).mismatches == 0

    def test_a_sample_is_as_large_as_asked_for(self, tmp_path: Path, logs: Path, rows: list[Row]) -> None:
        assert compare(tmp_path, logs, rows, sample=37).compared == 37

    def test_a_run_of_other_events_is_reported(self, tmp_path: Path, logs: Path, rows: list[Row]) -> None:
        run = f"{TODAY}-60d-00000000"
        log = [r | {"usage_run": run} for r in rows if str(r["usage_run"]).startswith(f"{TODAY}-60d")]
        report = compare(tmp_path, logs, log)
        assert (report.changed_runs, report.mismatches, report.compared) == ([run], 0, len(log))


def ids(kind: str, count: int) -> list[str]:
    return [f"{kind} {i}" for i in range(count)]


def usage(row: Row) -> dict[str, int]:
    return {pair["product"]: pair["uses"] for pair in row["product_usage_60d"]}


def yesterday(row: Row) -> dict[str, int]:
    """The usage as of the day before."""
    return usage_then(WORLD.uses, row["user_id"], TODAY - timedelta(days=1), 60)


def features(row: Row) -> UserFeatures:
    return UserFeatures(tuple(row["recent_screens"]), usage(row))


def changed(row: Row, screens: list[str] | None = None, usage: dict[str, int] | None = None) -> Row:
    """The row of a service that read other features, and went on with them."""
    now = features(row)
    read = UserFeatures(
        now.recent_screens if screens is None else tuple(screens), now.product_usage_60d if usage is None else usage
    )
    pairs = [{"product": product, "uses": uses} for product, uses in read.product_usage_60d.items()]
    columns = {"recent_screens": list(read.recent_screens), "product_usage_60d": pairs}
    return row | columns | preprocessed(row["text"], read, PREPROCESSOR)


def fingerprint() -> Row:
    return {"preprocessing": PREPROCESSOR.fingerprint}


def degraded() -> Row:
    return {"degraded": ["recent_screens", "product_usage_60d"], "features_at": None, "usage_run": None}
