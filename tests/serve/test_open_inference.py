"""The Open Inference Protocol through the real graph."""

from typing import Any

import httpx
import pytest

from models.registry import Registry
from tests.serve.conftest import Service

MODEL = "/v2/models/production"
TEXTS = ["my card got eaten by the cash machine", "it got declined again", "any news?", "what is the weather like"]


def tensor(name: str, data: list[Any], *more: int) -> dict[str, Any]:
    return {"name": name, "shape": [len(data), *more], "datatype": "BYTES", "data": data}


def infer(service: Service, body: dict[str, Any], **options: Any) -> httpx.Response:
    return service.http.post(f"{MODEL}/infer", json=body, **options)


def test_both_protocols_give_the_same_answers(service: Service) -> None:
    users = ["u1", "u2", "nobody", "u3"]
    inputs = [tensor("text", [[text] for text in TEXTS], 1), tensor("user_id", users), tensor("request_id", users)]
    answer = infer(service, {"id": "42", "inputs": inputs, "parameters": {"top_k": 2}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    version = Registry().load("production").version
    assert (body["id"], body["model_name"], body["model_version"]) == ("42", "production", version)
    outputs = {output["name"]: output for output in body["outputs"]}
    assert outputs["top_product"]["shape"] == [4, 2]
    for i, (user, text) in enumerate(zip(users, TEXTS, strict=True)):
        message = {"user_id": user, "text": text, "request_id": user, "top_k": 2}
        alone = service.http.post("/v1/predict", json=message).json()
        assert {
            name: outputs[name]["data"][i] for name in ("request_id", "product", "confidence", "action", "desk")
        } == {
            "request_id": user,
            "product": alone["product"],
            "confidence": alone["confidence"],
            "action": alone["action"]["type"],
            "desk": alone["action"]["desk"],
        }
        assert outputs["degraded"]["data"][i] == ",".join(alone["degraded"])
        assert outputs["top_product"]["data"][2 * i : 2 * i + 2] == [top["product"] for top in alone["top"]]


def test_the_model_and_the_server_tell_that_they_are_ready(service: Service) -> None:
    assert service.http.get("/v2").json()["name"] == "switchboard"
    assert service.http.get("/v2/health/live").json() == {"live": True}
    assert service.http.get("/v2/health/ready").json()["ready"] is True
    [version] = service.http.get(MODEL).json()["versions"]
    assert service.http.get(f"{MODEL}/versions/{version}/ready").json() == {"name": "production", "ready": True}


def test_64_messages_of_wide_characters_fit(service: Service) -> None:
    body = {"inputs": [tensor("text", ["é" * 4000] * 64), tensor("user_id", ["u1"] * 64)]}
    answer = infer(service, body | {"outputs": [{"name": "desk"}]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["shape"] == [64]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v2/models/other/infer", {}, 404),
        (f"{MODEL}/versions/0/infer", {}, 404),
        (f"{MODEL}/infer", {"Inference-Header-Content-Length": "2"}, 415),
        (f"{MODEL}/infer", {}, 422),
    ],
)
def test_a_clients_mistake_is_named(service: Service, path: str, headers: dict[str, str], status: int) -> None:
    answer = service.http.post(path, json={"inputs": [tensor("colour", ["red"])]}, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
