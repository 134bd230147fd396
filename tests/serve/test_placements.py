"""All stages in the processes of two ingress replicas, as for one small node."""

from pathlib import Path
from typing import Any

import httpx
import yaml
from local_redis import LocalRedis
from ports import free_port

from loadtests.targets import switchboard, whole
from tests.serve.conftest import command, running, write_config
from tests.serve.polling import until
from tests.serve.processes import replicas

WORDS = {"my card got eaten by the cash machine": "checking_account", "how do I send money to a friend": "transfers"}


def asked(http: httpx.Client) -> list[dict[str, Any]]:
    """The answers to eight customers; none where a connection is closed, as HAProxy may when it hears of a replica."""
    bodies = [{"user_id": f"u{number}", "text": text} for number in range(1, 9) for text in WORDS]
    try:
        return [http.post("/v1/predict", json=body).json() for body in bodies]
    except httpx.TransportError:
        return []


def test_two_ingress_replicas_answer_alone(tmp_path: Path, redis_server: LocalRedis) -> None:
    file, port = write_config(tmp_path / "config.yaml"), free_port()
    config = yaml.safe_load(file.read_text())
    whole(switchboard(config), 2)
    file.write_text(yaml.safe_dump(config))
    arguments = command(tmp_path / "state", port, "--config", str(file))
    with (
        running(arguments, redis_server.url) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        assert len(replicas(process.pid, "Ingress")) == len(replicas(process.pid)) == 2
        answers = until(lambda: asked(http), bool)
    assert [answer["product"] for answer in answers] == [*WORDS.values()] * 8
    assert [answer["degraded"] for answer in answers] == [[]] * 16
    assert any(answer["cached"] for answer in answers)
