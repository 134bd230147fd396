"""Parts break while the service runs; answers go on, and it heals by itself."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from redis import Redis

from tests.serve.conftest import Service
from tests.serve.polling import until
from tests.serve.test_request_path import predict

BOTH = ["recent_screens", "product_usage_60d"]


def test_redis_dies_and_returns(service: Service) -> None:
    predict(service, "u1", "where is my salary")
    os.kill(service.redis.pid, signal.SIGKILL)
    degraded = until(lambda: predict(service, "u1", "where is my salary"), lambda body: bool(body["degraded"]))
    assert degraded["degraded"] == BOTH
    assert degraded["product"] == "checking_account"
    event = service.http.post("/v1/events/screens", json={"user_id": "u1", "screen": "home"})
    assert (event.status_code, event.json()["error"]["code"]) == (503, "unavailable")
    healed = until(lambda: predict(service, "u1", "where is my salary"), lambda body: not body["degraded"])
    assert healed["features"]["product_usage_60d"]


def test_the_ingester_survives_the_restart(service: Service) -> None:
    with Redis.from_url(service.redis.url) as redis:
        until(lambda: redis.ping(), bool)
    service.http.post("/v1/events/screens", json={"user_id": "fred", "screen": "bills_scan"})
    until(
        lambda: predict(service, "fred", "help")["features"]["recent_screens"],
        lambda seen: seen == ["bills_scan"],
    )


def test_a_killed_classifier_is_replaced(service: Service) -> None:
    """Known texts are answered all the time; new ones fail clearly until a new replica is warm."""
    predict(service, "u1", "known text")
    _kill("Classifier", service)
    assert predict(service, "u1", "known text")["cached"] is True
    seen = until(
        lambda: service.http.post("/v1/predict", json={"user_id": "u1", "text": "entirely new text"}),
        lambda answer: answer.status_code == 200,
        timeout_s=120,
    )
    assert seen.json()["product"]


@pytest.mark.parametrize("deployment", ["Preprocessor", "FeatureGatherer", "PredictionCache"])
def test_answers_go_on_without_a_killed_stage(service: Service, deployment: str) -> None:
    """None fails or lacks its features, be its text new or known, its batch large or small; then the stage is back."""
    with ThreadPoolExecutor(40) as pool:
        asked = [
            pool.submit(
                service.http.post, "/v1/predict", json={"user_id": f"u{i % 9}", "text": f"{deployment} {i % 99}"}
            )
            for i in range(400)
        ]
        _kill(deployment, service)
        answers = [answer.result() for answer in asked]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert all(answer.json()["degraded"] == [] for answer in answers)
    until(lambda: _victims(deployment, service), bool, timeout_s=120)
    until(lambda: predict(service, "u1", f"after {deployment}")["cached"], bool, timeout_s=120)


def _kill(deployment: str, service: Service) -> None:
    """SIGKILL every replica of a deployment."""
    victims = _victims(deployment, service)
    assert victims
    for victim in victims:
        victim.kill()


def _victims(deployment: str, service: Service) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name", "cmdline"]) if _is_ours(p, service) and _named(p, deployment)]


def _named(process: psutil.Process, deployment: str) -> bool:
    return any("ServeReplica" in part and deployment in part for part in process.info["cmdline"] or ())


def _is_ours(process: psutil.Process, service: Service) -> bool:
    try:
        return service.process.pid in [parent.pid for parent in process.parents()]
    except psutil.NoSuchProcess:
        return False
