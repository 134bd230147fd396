"""Parts break while the service runs; answers go on, and it heals by itself."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.serve.conftest import Service
from tests.serve.polling import until
from tests.serve.processes import replicas
from tests.serve.test_request_path import predict

STORE_IS_LEFT = "feature store: ConnectionError; answering without it"
BOTH = ["recent_screens", "product_usage_60d"]


def test_redis_dies_and_returns(service: Service) -> None:
    predict(service, "u1", "where is my salary")
    os.kill(service.redis.pid, signal.SIGKILL)
    degraded = until(lambda: predict(service, "u1", "where is my salary"), lambda body: bool(body["degraded"]))
    assert degraded["degraded"] == BOTH
    assert degraded["product"] == "checking_account"
    event = service.http.post("/v1/events/screens", json={"user_id": "u1", "screen": "home"})
    assert (event.status_code, event.json()["error"]["code"]) == (503, "unavailable")
    until(
        lambda: predict(service, "u1", "nothing yet") and _log_lines(service),
        lambda lines: STORE_IS_LEFT in "".join(lines),
    )
    healed = until(lambda: predict(service, "u1", "where is my salary"), lambda body: not body["degraded"])
    assert healed["features"]["product_usage_60d"]
    seen = service.http.post("/v1/events/screens", json={"user_id": "fred", "screen": "bills_scan"})
    assert seen.status_code == 202
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
    until(lambda: replicas(service.process.pid, deployment), bool)
    until(lambda: predict(service, "u1", f"after {deployment}")["cached"], bool)


@pytest.mark.parametrize("deployment", ["Preprocessor", "FeatureGatherer"])
def test_answers_go_on_while_a_stage_hangs(service: Service, deployment: str) -> None:
    with _stopped(deployment, service), ThreadPoolExecutor(40) as pool:
        asked = [
            pool.submit(
                service.http.post,
                "/v1/predict",
                json={"user_id": f"u{i % 9}", "text": f"hanging {deployment} {i % 99}"},
            )
            for i in range(400)
        ]
        answers = [answer.result() for answer in asked]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    until(lambda: predict(service, "u1", f"{deployment} goes on")["degraded"], lambda lacking: not lacking)


def test_new_texts_are_answered_while_the_cache_hangs(service: Service) -> None:
    """Those that waited for it when it stopped may fail; within the breaker's time nothing else does."""
    with _stopped("PredictionCache", service):
        until(lambda: _status(service, "the cache hangs"), lambda status: status == 200)
        assert {_status(service, f"the cache hangs, {i}") for i in range(50)} == {200}
    until(lambda: predict(service, "u1", "the cache goes on")["cached"], bool)


def test_known_texts_are_answered_while_the_classifier_hangs(service: Service) -> None:
    predict(service, "u1", "a text before the classifier hangs")
    with _stopped("Classifier", service):
        assert predict(service, "u1", "a text before the classifier hangs")["cached"] is True
        assert until(lambda: _status(service, "unheard of"), lambda status: status != 504) == 503
        assert predict(service, "u1", "a text before the classifier hangs")["cached"] is True
    until(lambda: _status(service, "unheard of, and the classifier goes on"), lambda status: status == 200)


def _status(service: Service, text: str) -> int:
    status: int = service.http.post("/v1/predict", json={"user_id": "u1", "text": text}).status_code
    return status


@contextmanager
def _stopped(deployment: str, service: Service) -> Iterator[None]:
    """SIGSTOP every replica of a deployment, and let it go on in the end."""
    victims = replicas(service.process.pid, deployment)
    assert victims
    try:
        for victim in victims:
            victim.suspend()
        yield
    finally:
        for victim in victims:
            victim.resume()


def _log_lines(service: Service) -> list[str]:
    """What the replicas have logged, in the files that they write."""
    files = set[str]()
    for replica in replicas(service.process.pid):
        with suppress(psutil.Error):
            files |= {file.path for file in replica.open_files() if file.path.endswith(".log")}
    return [line for file in files for line in Path(file).read_text(errors="replace").splitlines()]


def _kill(deployment: str, service: Service) -> None:
    """SIGKILL every replica of a deployment."""
    victims = replicas(service.process.pid, deployment)
    assert victims
    for victim in victims:
        victim.kill()
