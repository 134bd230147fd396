import inspect
import json
import re

import httpx
import msgspec
import pytest
from starlette.routing import Route

from deployments import inference_protocol, openapi, protocol
from deployments.ingress import PREDICT
from tests.unit.plain_graph import Service

DOCUMENT = openapi.document()
SCHEMAS = DOCUMENT["components"]["schemas"]
WIRE = [
    kind
    for module in (protocol, inference_protocol)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__
]


def test_the_document_has_the_routes_of_the_application(at: Service) -> None:
    routes = {
        (route.path, method.lower())
        for route in at.ingress.other_routes().routes
        if isinstance(route, Route) and route.path.startswith(("/v1/", "/v2", "/healthz/"))
        for method in (route.methods or set()) - {"HEAD"}
    } | {(PREDICT, "post")}
    assert routes == {(path, method) for path, item in DOCUMENT["paths"].items() for method in item}


@pytest.mark.parametrize("wire", WIRE, ids=lambda wire: wire.__name__)
def test_every_field_on_the_wire_is_described(wire: type[msgspec.Struct]) -> None:
    schema = SCHEMAS[wire.__name__]
    required = {field.encode_name for field in msgspec.structs.fields(wire) if field.required}
    assert set(schema["properties"]) == set(wire.__struct_fields__)
    assert set(schema.get("required", ())) == required


def test_the_limits_are_described() -> None:
    request = SCHEMAS["PredictRequest"]
    assert request["additionalProperties"] is SCHEMAS["ScreenEventRequest"]["additionalProperties"] is False
    properties = request["properties"]
    assert {**properties["user_id"]}.items() >= {"type": "string", "minLength": 1, "maxLength": 128}.items()
    assert properties["text"].items() >= {"type": "string", "minLength": 1, "maxLength": 4000}.items()
    assert properties["top_k"].items() >= {"type": "integer", "minimum": 1, "maximum": 100, "default": 3}.items()


def test_every_name_in_a_path_is_described() -> None:
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            named = [parameter["name"] for parameter in operation.get("parameters", ())]
            assert named == re.findall(r"{(\w+)}", path)


def test_every_reference_leads_to_a_schema() -> None:
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert referred == {wire.__name__ for wire in WIRE} == set(SCHEMAS)


def test_every_error_has_the_format_of_errors() -> None:
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            for status, response in operation["responses"].items():
                reference = response["content"]["application/json"]["schema"].get("$ref", "")
                assert (status >= "400") == reference.endswith("/ErrorResponse"), (path, status)


def test_who_is_told_to_come_back_is_told_when() -> None:
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            for status, response in operation["responses"].items():
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503")), (path, status)
                assert "X-Request-ID" in response["headers"]


@pytest.mark.parametrize("path", ["/v1/models", "/healthz/live", "/healthz/ready"])
async def test_answers_without_a_type_have_the_fields_that_are_described(at: Service, path: str) -> None:
    schema = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    if path == "/healthz/ready":
        await at.ingress.warm_up()
    answer = (await at.http.get(path)).json()
    assert set(answer) == set(schema["properties"]) == set(schema["required"])
    if path == "/v1/models":
        present = schema["properties"]["models"]["items"]["oneOf"][0]
        assert set(answer["models"][0]) == set(present["properties"])


async def test_requests_are_tried_out_below_the_prefix(at: Service) -> None:
    assert DOCUMENT["servers"] == [{"url": "/"}]
    transport = httpx.ASGITransport(at.ingress.app(), root_path="/bank")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/bank/openapi.json")).json()["servers"] == [{"url": "/bank"}]


async def test_the_document_and_its_page_are_served_without_another_host(at: Service) -> None:
    assert (await at.http.get("/openapi.json")).json() == DOCUMENT
    page = await at.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 2
    for asset in assets:
        assert (await at.http.get(f"/{asset}")).status_code == 200
