"""The loop of a product that keeps up: a new kind of question, feedback on some hundred messages, the next bundle.

Every step is the one that an operator takes: answers with the served log, `POST /v1/feedback`,
`python -m features training-set --feedback`, `python -m models train --feedback`.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_redis import LocalRedis

from deployments.ingress import Ingress
from deployments.served import ServedLogConfig
from deployments.served_log import ServedLog
from deployments.served_rows import rows
from features.__main__ import main as features
from features.store import connect
from models.__main__ import main as models
from models.bundle import Bundle
from models.data import Example, load
from models.evaluate import evaluate
from tests.unit.plain_graph import classify_stage, flow
from tests.unit.tiny import STRANGE, chat, chats, save_encoder

NEW = "leisure"
"""Nobody asked about it when the first bundle was trained."""
MESSAGES = 240


def shifted(count: int, seed: int) -> list[Example]:
    """Messages of the new kind."""
    rng = random.Random(seed)
    return [Example(chat(STRANGE, rng), NEW) for _ in range(count)]


def trained(folder: Path, encoder: str, *feedback: Path) -> Bundle:
    """What `models train` makes of the old chats and the feedback."""
    out = folder / f"bundles-{len(feedback)}"
    options = {
        "data": folder / "chats.jsonl", "out": out, "work": folder / "work", "encoder": encoder, "teachers": 1,
        "teacher-epochs": 40, "student": "teacher", "validation": 0.2,
    }  # fmt: skip
    arguments = ["train", *(str(x) for name, value in options.items() for x in (f"--{name}", value))]
    assert models([*arguments, *(["--feedback", *map(str, feedback)] if feedback else [])]) == 0
    (bundle,) = out.glob("[!.]*/manifest.json")
    return Bundle(bundle.parent)


async def serve(bundle: Bundle, url: str, log: Path, messages: Sequence[Example]) -> list[dict[str, Any]]:
    """Answer messages, and tell for each which desk helped in the end."""
    redis = connect(url, 5.0)
    await redis.flushall()
    served = ServedLog(ServedLogConfig(folder=str(log), text=True), rows)
    stages = replace(flow(bundle, classify_stage(bundle, bundle.classifier()), redis), record=served.record)
    ingress = Ingress(stages, bundle, redis, on_stop=served.close)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(ingress.app()), base_url="http://switchboard")
    answers = []
    async with client, ingress.other_routes().router.lifespan_context(None):
        for i, message in enumerate(messages):
            asked = {"user_id": "ann", "text": message.text, "request_id": f"r{i}"}
            answers.append((await client.post("/v1/predict", json=asked)).json())
            told = await client.post("/v1/feedback", json={"request_id": f"r{i}", "product": message.product})
            assert told.json()["product_known"] is (message.product in bundle.manifest.labels)
    await redis.aclose()
    return answers


def test_feedback_teaches_a_new_kind_of_question(
    tmp_path: Path, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = save_encoder(tmp_path / "encoder", num_hidden_layers=2)
    old = chats(240)
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in old))
    first = trained(tmp_path, encoder)
    assert NEW not in first.manifest.labels

    messages = [*shifted(MESSAGES * 3 // 4, seed=1), *chats(MESSAGES // 4, seed=2)]
    answers = asyncio.run(serve(first, redis_server.url, tmp_path / "log", messages))
    assert all(answer["product"] != NEW for answer in answers)

    collected = tmp_path / "feedback.jsonl"
    capsys.readouterr()
    options = ["--feedback", "--log", str(tmp_path / "log"), "--redis-url", redis_server.url, "--out", str(collected)]
    assert features(["training-set", *options]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == MESSAGES
    assert sorted((row.text, row.product) for row in load(collected)) == sorted((m.text, m.product) for m in messages)

    second = trained(tmp_path, encoder, collected)
    unseen_new, unseen_old = shifted(60, seed=3), chats(60, seed=4)
    before, after = (evaluate(b, unseen_old, b.classifier())["accuracy"] for b in (first, second))
    assert evaluate(second, unseen_new, second.classifier())["accuracy"] > 0.9
    assert after >= before - 0.1
