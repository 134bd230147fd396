"""The served log: every answered message becomes a row on disk, and a clean stop leaves none behind."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from deployments.flow import Answer
from deployments.ingress import Ingress
from deployments.protocol import DependencyError, LogitBatch, Query, TokenBatch
from deployments.served import ServedBatch, ServedLogConfig
from deployments.served_log import ServedLog
from deployments.served_rows import rows
from features.schema import ScreenEvent
from features.served_schema import SERVED, context_hash, text_hash
from features.store import FeatureStore
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.serve.polling import until
from tests.unit.plain_graph import Classify, classify_stage, flow

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
Answers = list[Answer | Exception]
Answerer = Callable[..., Awaitable[Answers]]
Row = dict[str, Any]


def log(folder: Path, **config: object) -> ServedLog:
    return ServedLog(ServedLogConfig.model_validate({"folder": str(folder), **config}), rows, drain_s=0.01)


def logged(folder: Path) -> list[Row]:
    return pq.read_table(folder, schema=SERVED).to_pylist() if list(folder.rglob("*.parquet")) else []


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*.parquet"))


@pytest.fixture
def answer(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> Answerer:
    """Answers queries and gives the batch to a log."""

    async def serve(served: ServedLog, *queries: Query, classify: Classify | None = None) -> Answers:
        stages = flow(bundle, classify or classify_stage(bundle, classifier), redis)
        return await replace(stages, record=served.record).answer(queries, bundle)

    return serve


def query(number: int, text: str = "where is my card") -> Query:
    return Query(f"r{number}", "ann", text, 3)


async def test_a_row_holds_what_was_served(answer: Answerer, redis: Redis, bundle: Bundle, tmp_path: Path) -> None:
    store = FeatureStore(redis)
    await store.write_screens([ScreenEvent("e1", "ann", "card_limit", datetime.now(UTC))])
    await store.write_usage("run-7", {"ann": {"credit_card": 3, "loans": 1}})
    await store.publish_run("run-7")
    served = log(tmp_path, text=True)
    (answered,) = await answer(served, query(1))
    served.close()
    (row,) = logged(tmp_path)
    assert isinstance(answered, Answer)
    response = answered.response
    tokens = bundle.preprocessor.tokens(["where is my card"])[0]
    assert (row["request_id"], row["user_id"], row["text"]) == ("r1", "ann", "where is my card")
    assert (row["recent_screens"], row["usage_run"], row["degraded"]) == (["card_limit"], "run-7", [])
    usage = {item["product"]: item["uses"] for item in row["product_usage_60d"]}
    assert usage == {"credit_card": 3, "loans": 1}
    assert (row["tokens"], row["unknown_tokens"], row["text_hash"]) == (len(tokens), 0, text_hash(tokens))
    assert row["context_hash"] == context_hash(bundle.preprocessor.context(["card_limit"], usage))
    assert (row["product"], row["desk"]) == (response.product, response.action.desk)
    assert row["confidence"] == pytest.approx(response.confidence)
    assert (row["model_version"], row["preprocessing"]) == (bundle.version, bundle.manifest.fingerprint)
    assert len(row["text_logits"]) == bundle.manifest.outputs
    assert row["features_at"] is not None


async def test_texts_are_kept_only_when_asked_for(answer: Answerer, tmp_path: Path) -> None:
    served = log(tmp_path)
    await answer(served, query(1, "a secret"))
    served.close()
    assert logged(tmp_path)[0]["text"] is None
    assert b"a secret" not in content(tmp_path)


async def test_unknown_tokens_are_counted(answer: Answerer, bundle: Bundle, tmp_path: Path) -> None:
    text = "card \u4f60\u597d"
    served = log(tmp_path)
    await answer(served, query(1, text))
    served.close()
    expected = bundle.preprocessor.tokens([text])[0].tolist().count(bundle.preprocessor.unknown_id)
    assert expected > 0
    assert logged(tmp_path)[0]["unknown_tokens"] == expected


async def test_failed_messages_are_not_served(
    answer: Answerer, bundle: Bundle, classifier: TextClassifier, tmp_path: Path
) -> None:
    real = classify_stage(bundle, classifier)
    broken = False

    async def sometimes(batch: TokenBatch) -> LogitBatch:
        if broken:
            raise DependencyError("gone")
        return await real(batch)

    served = log(tmp_path)
    await answer(served, query(1), classify=sometimes)
    broken = True
    (failed,) = await answer(served, query(2, "something else"), classify=sometimes)
    served.close()
    assert isinstance(failed, DependencyError)
    assert [row["request_id"] for row in logged(tmp_path)] == ["r1"]


async def test_a_degraded_answer_says_so(
    bundle: Bundle, classifier: TextClassifier, dead_redis: Redis, tmp_path: Path
) -> None:
    served = log(tmp_path)
    stages = replace(flow(bundle, classify_stage(bundle, classifier), dead_redis), record=served.record)
    await stages.answer([query(1)], bundle)
    served.close()
    (row,) = logged(tmp_path)
    assert row["degraded"] == ["recent_screens", "product_usage_60d"]
    assert (row["features_at"], row["usage_run"]) == (None, None)


async def test_a_clean_stop_of_the_ingress_writes_every_row(
    bundle: Bundle, classifier: TextClassifier, redis: Redis, tmp_path: Path
) -> None:
    served = log(tmp_path, rotate_s=3600)
    stages = replace(flow(bundle, classify_stage(bundle, classifier), redis), record=served.record)
    ingress = Ingress(stages, bundle, redis, on_stop=served.close)
    app = ingress.other_routes()
    async with app.router.lifespan_context(app):
        await ingress.warm_up()
        for number in range(5):
            await stages.answer([query(2 * number), query(2 * number + 1)], bundle)
        assert logged(tmp_path) == []
    assert sorted(str(row["request_id"]) for row in logged(tmp_path)) == sorted(f"r{i}" for i in range(10))
    assert (served.written, served.pending, served.dropped) == (10, 0, 0)


@pytest.fixture
async def batch(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> ServedBatch:
    """One served batch of two messages, answered at noon."""
    taken: list[ServedBatch] = []
    stages = replace(flow(bundle, classify_stage(bundle, classifier), redis), record=taken.append)
    await stages.answer([query(1), query(2)], bundle)
    return replace(taken[0], answered_at=NOON)


def test_each_day_has_its_folder(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path)
    served.record(batch)
    served.record(replace(batch, answered_at=NOON + 86_400))
    served.close()
    assert {p.parent.name for p in tmp_path.rglob("*.parquet")} == {"day=2026-11-25", "day=2026-11-26"}
    moments = {row["answered_at"].date() for row in logged(tmp_path)}
    assert moments == {date(2026, 11, 25), date(2026, 11, 26)}


def test_too_many_rows_are_dropped_and_counted(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path, max_pending=3, rotate_s=3600)
    for _ in range(3):
        served.record(batch)
    served.close()
    assert (served.written, served.dropped) == (2, 4)
    assert served.counts()["served_log_dropped_total"] == 4


def test_rows_outlive_a_folder_that_cannot_be_written(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path / "log", rotate_s=3600)
    obstacle = tmp_path / "log" / "day=2026-11-25"
    obstacle.write_text("a file where a folder should be")
    served.record(batch)
    served.close()
    assert (served.written, served.failures, served.pending) == (0, 1, 2)
    obstacle.unlink()
    served.close()
    assert (served.written, served.pending) == (2, 0)


def test_rows_that_wait_go_to_the_folder_of_their_own_day(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path, rotate_s=3600)
    obstacle = tmp_path / "day=2026-11-25"
    obstacle.write_text("a file where a folder should be")
    served.record(batch)
    served.record(replace(batch, answered_at=NOON + 86_400))
    served.close()
    assert (served.written, served.failures, served.pending) == (2, 1, 2)
    obstacle.unlink()
    served.close()
    assert served.pending == 0
    for day in (date(2026, 11, 25), date(2026, 11, 26)):
        assert [row["answered_at"].date() for row in logged(tmp_path / f"day={day}")] == [day] * 2


def test_an_old_file_that_cannot_be_deleted_does_not_end_the_log(batch: ServedBatch, tmp_path: Path) -> None:
    (tmp_path / "day=2020-01-01" / "served-a.parquet").mkdir(parents=True)
    served = log(tmp_path, keep_days=7, rotate_rows=1)
    for _ in range(2):
        served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
        until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.close()
    assert served.written == 4
    assert served.failures > 0


def test_a_folder_that_cannot_be_read_for_a_while_does_not_end_the_log(batch: ServedBatch, tmp_path: Path) -> None:
    """As on a network file system whose server restarts; here it is a link to a name that is too long."""
    folder, draft = tmp_path / "served", tmp_path / "draft"
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    served = log(folder, keep_days=7, rotate_s=0.01)
    draft.symlink_to("x" * 300)
    draft.replace(folder)
    served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
    until(lambda: served.failures, lambda failures: failures > 3)
    draft.symlink_to(tmp_path / "disk")
    draft.replace(folder)
    until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.close()
    assert len(logged(folder)) == served.written == 2


def test_drafts_of_killed_processes_are_deleted_with_their_day(batch: ServedBatch, tmp_path: Path) -> None:
    old = tmp_path / "day=2020-01-01"
    old.mkdir()
    (old / ".served-a.parquet.4f2e").write_bytes(b"half a file")
    served = log(tmp_path, keep_days=7)
    served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
    served.close()
    assert not old.exists()


def test_old_files_are_deleted_when_asked_for(batch: ServedBatch, tmp_path: Path) -> None:
    old = tmp_path / "day=2020-01-01"
    old.mkdir()
    pq.write_table(pa.table({"x": np.arange(2)}), old / "served-a.parquet")
    (old / "notes.txt").write_text("not ours")
    served = log(tmp_path, keep_days=7)
    served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
    served.close()
    assert [path.name for path in old.iterdir()] == ["notes.txt"]
    (today,) = (day for day in tmp_path.iterdir() if day != old)
    assert len(logged(today)) == 2


def test_a_log_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="folder"):
        ServedLog(ServedLogConfig(), rows)


async def test_a_message_that_failed_waits_for_no_file(
    answer: Answerer, bundle: Bundle, classifier: TextClassifier, tmp_path: Path
) -> None:
    """It has no row; were it counted for ever, `max_pending` of them would end the log."""
    stage = classify_stage(bundle, classifier)

    async def half(batch: TokenBatch) -> LogitBatch:
        answered = await stage(batch)
        logits = np.where([[False], [True]], np.nan, answered.logits).astype(np.float32)
        return replace(answered, logits=logits, failure="no answer")

    served = log(tmp_path)
    good, bad = await answer(served, query(1), query(2, "hello"), classify=half)
    served.close()
    assert (isinstance(good, Answer), isinstance(bad, DependencyError)) == (True, True)
    assert (served.written, served.pending) == (1, 0)
