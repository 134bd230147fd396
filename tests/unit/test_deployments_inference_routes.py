"""The Open Inference Protocol over HTTP: what it tells, and that its answers are those of `/v1/predict`."""

import re
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.inference_routes import MAX_INFERENCE_BODY
from models.bundle import Bundle
from tests.unit.plain_graph import Service, answered, refused
from tests.unit.tensors import INFER, columns, infer, messages, tensor

MODEL = "/v2/models/production"
TEXTS = ("my card was declined at the shop", "how do I send a transfer", "what is the weather like")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "inference.md").read_text()
LARGEST = msgspec.json.encode({"inputs": messages("hi")}).ljust(MAX_INFERENCE_BODY)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_tells_its_name_and_version(at: Service, path: str) -> None:
    expected = {"name": "switchboard", "version": version("switchboard"), "extensions": []}
    assert (await at.http.get(path)).json() == expected


@pytest.mark.parametrize("version_path", [False, True])
async def test_it_is_ready_when_every_stage_is(at: Service, bundle: Bundle, version_path: bool) -> None:
    model = f"{MODEL}/versions/{bundle.version}" if version_path else MODEL
    assert (await at.http.get("/v2/health/live")).json() == {"live": True}
    for path in ("/v2/health/ready", f"{model}/ready"):
        assert refused(await at.http.get(path), 503).code == "not_ready"
    await at.ingress.warm_up()
    assert (await at.http.get("/v2/health/ready")).json() == {"live": True, "ready": True}
    assert (await at.http.get(f"{model}/ready")).json() == {"name": "production", "ready": True}


async def test_the_metadata_describe_the_answer(at: Service, bundle: Bundle) -> None:
    metadata = (await at.http.get(MODEL)).json()
    assert metadata == (await at.http.get(f"{MODEL}/versions/{bundle.version}")).json()
    assert (metadata["name"], metadata["versions"]) == ("production", [bundle.version])
    assert metadata["platform"] == "onnx_onnxv1"
    inputs = [tensor(given["name"], ["one", "two"], datatype=given["datatype"]) for given in metadata["inputs"]]
    outputs = (await infer(at, inputs)).json()["outputs"]
    for described, output in zip(metadata["outputs"], outputs, strict=True):
        assert set(described["shape"]) == {-1}
        assert len(described["shape"]) == len(output["shape"])
        assert (described["name"], described["datatype"]) == (output["name"], output["datatype"])
        kind = {"BYTES": str, "FP64": float, "BOOL": bool}[output["datatype"]]
        assert {type(element) for element in output["data"]} == {kind}


@pytest.mark.parametrize("top_k", [1, 3, 100])
async def test_an_inference_answers_as_predict_does(at: Service, top_k: int) -> None:
    alone = [answered(await at.predict(user_id="ann", text=text, request_id=text, top_k=top_k)) for text in TEXTS]
    inputs = [*messages(*TEXTS), tensor("request_id", TEXTS)]
    together = columns(await infer(at, inputs, parameters={"top_k": top_k}))
    assert together == {
        "request_id": [answer.request_id for answer in alone],
        "product": [answer.product for answer in alone],
        "confidence": [answer.confidence for answer in alone],
        "action": [answer.action.type for answer in alone],
        "desk": [answer.action.desk for answer in alone],
        "top_product": [candidate.product for answer in alone for candidate in answer.top],
        "top_confidence": [candidate.confidence for answer in alone for candidate in answer.top],
        "cached": [True] * len(alone),
        "degraded": [""] * len(alone),
    }


async def test_the_answer_tells_the_model_and_the_request(at: Service, bundle: Bundle) -> None:
    for path in (INFER, f"{MODEL}/versions/{bundle.version}/infer"):
        body = {"id": "42", "inputs": messages("hello"), "outputs": [{"name": "desk"}], "model_name": "production"}
        answer = (await at.http.post(path, json=body)).json()
        [output] = answer.pop("outputs")
        assert (output["name"], output["shape"], output["datatype"]) == ("desk", [1], "BYTES")
        assert answer == {"model_name": "production", "model_version": bundle.version, "id": "42"}


@pytest.mark.parametrize("fields", [{}, {"id": None, "parameters": None, "outputs": None}])
async def test_a_request_without_identifier_gets_none(at: Service, fields: dict[str, object]) -> None:
    assert "id" not in (await infer(at, messages("hello"), **fields)).json()


async def test_the_documented_request_works(at: Service) -> None:
    [example] = re.findall(r"-d '(\{.*?\})'", PAGE, re.DOTALL)
    assert list(columns(await at.http.post(INFER, content=example))) == ["desk", "confidence"]
    for name in columns(await infer(at, messages("hi"))):
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize("end", ["", "/ready", "/infer"])
@pytest.mark.parametrize("path", ["/v2/models/other", f"{MODEL}/versions/1"])
async def test_other_models_and_versions_are_not_there(at: Service, path: str, end: str) -> None:
    method = "POST" if end == "/infer" else "GET"
    error = refused(await at.http.request(method, path + end, json={"inputs": messages("hi")}), 404)
    assert error.code == "not_found"
    assert "only" in error.message


@pytest.mark.parametrize("path", ["/v2/models", "/v2/health", f"{MODEL}/load", f"{MODEL}/versions", "/v2/nothing"])
async def test_other_paths_are_not_there(at: Service, path: str) -> None:
    assert refused(await at.http.get(path), 404).code == "not_found"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", INFER), ("POST", "/v2"), ("PUT", MODEL), ("POST", "/v2/health/live")]
)
async def test_other_methods_are_refused(at: Service, method: str, path: str) -> None:
    assert refused(await at.http.request(method, path), 405).code == "method_not_allowed"


async def test_binary_tensors_are_refused_with_the_reason(at: Service) -> None:
    headers = {"Inference-Header-Content-Length": "20", "content-type": "application/octet-stream"}
    error = refused(await at.http.post(INFER, content=b"\0" * 30, headers=headers), 415)
    assert "binary data extension is not offered" in error.message


async def test_a_body_without_content_type_is_json(at: Service) -> None:
    """KServe's client sends none."""
    assert (await at.http.post(INFER, content=LARGEST.strip())).status_code == 200
    assert refused(await at.http.post(INFER, content=LARGEST, headers={"content-type": "text/plain"}), 415)


async def test_a_body_may_have_a_mebibyte(at: Service) -> None:
    assert (await at.http.post(INFER, content=LARGEST)).status_code == 200
    assert refused(await at.http.post(INFER, content=LARGEST + b" "), 413).code == "body_too_large"


async def test_64_of_the_longest_messages_fit(at: Service) -> None:
    assert len(columns(await infer(at, messages(*["x" * 4000] * 64)))["desk"]) == 64


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b'{"inputs": NaN}', 400, None),
        (b'{"inputs": [{"name": "\\ud800"}]}', 400, None),
        (b'{"inputs": [], "unknown": ' + b"[" * 100_000, 400, None),
        (b"[]", 422, None),
        (b"{}", 422, "inputs"),
        (b'{"inputs": {}}', 422, "inputs"),
        (b'{"inputs": [{"name": "text"}]}', 422, "inputs[0].shape"),
        (b'{"inputs": [{"name": "text", "shape": [true]}]}', 422, "inputs[0].shape[0]"),
        (b'{"inputs": [{"name": "text", "shape": [1.0]}]}', 422, "inputs[0].shape[0]"),
        (b'{"inputs": [{"name": "' + b"x" * 200 + b'"}]}', 422, "inputs[0].name"),
        (b'{"inputs": [], "id": 42}', 422, "id"),
        (b'{"inputs": [], "outputs": [7]}', 422, "outputs[0]"),
        (b'{"inputs": [], "parameters": {"top_k": 101}}', 422, "parameters.top_k"),
        (b'{"inputs": [], "parameters": {"top_k": true}}', 422, "parameters.top_k"),
        (b'{"inputs": [], "parameters": []}', 422, "parameters"),
    ],
)  # fmt: skip
async def test_a_mistake_is_named(at: Service, body: bytes, status: int, field: str | None) -> None:
    assert refused(await at.http.post(INFER, content=body), status).field == field


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
strings = st.lists(st.text(max_size=3), max_size=3)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["text", "user_id", "request_id"]) | anything,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | st.just([1]) | anything,
        "datatype": st.just("BYTES") | anything,
        "data": strings | st.lists(strings, max_size=3) | st.just(["one"]) | anything,
        "parameters": anything,
    },
)
fields = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3).map(lambda drawn: messages("one") + drawn) | st.lists(tensors) | anything},
    optional={
        "id": st.text(max_size=9) | anything,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("desk") | anything}), max_size=2) | anything,
        "parameters": st.fixed_dictionaries({"top_k": st.integers(-1, 102) | anything}) | anything,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary() | fields.map(msgspec.json.encode) | anything.map(msgspec.json.encode))
async def test_no_body_is_a_defect(at: Service, body: bytes) -> None:
    """The client raises what the application raises; every other answer is in the documented format."""
    response = await at.http.post(INFER, content=body)
    if response.status_code != 200:
        assert response.status_code in (400, 422)
        refused(response, response.status_code)


async def test_only_wanted_outputs_are_given(at: Service) -> None:
    names = ["top_confidence", "product"]
    answer = columns(await infer(at, messages("hi"), outputs=[{"name": name} for name in names]))
    assert list(answer) == names
