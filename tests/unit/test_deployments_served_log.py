"""The served log: every answered message becomes a row on disk, and a clean stop leaves none behind."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from deployments.flow import Answer
from deployments.ingress import Ingress
from deployments.protocol import DependencyError, LogitBatch, Query, TokenBatch
from deployments.served import ServedLogConfig
from deployments.served_log import ServedLog
from deployments.served_rows import rows
from features.schema import ScreenEvent
from features.served_schema import SERVED, context_hash, text_hash
from features.store import FeatureStore
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.unit.plain_graph import Classify, classify_stage, flow

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
