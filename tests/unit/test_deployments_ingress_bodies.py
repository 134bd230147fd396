"""Bodies, headers, paths and methods that a client may send, and how it is told which it may not."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.bodies import MAX_BODY, decode
from deployments.errors import ApiError
from deployments.protocol import PredictRequest
from tests.unit.plain_graph import MESSAGE, PREDICT, SCREEN, SCREENS, Service, refused

both = pytest.mark.parametrize(("path", "good", "success"), [(PREDICT, MESSAGE, 200), (SCREENS, SCREEN, 202)])


@both
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"user_id": "a\\ud800b"}', "invalid_json"),
        (b'{"user_id": "a\xffb"}', "invalid_utf8"),
        (b'{"user_id": "\xed\xa0\x80"}', "invalid_utf8"),
    ],
)
async def test_a_body_that_is_no_json_gets_400(
    at: Service, path: str, good: dict[str, Any], success: int, body: bytes, code: str
) -> None:
    assert refused(await at.http.post(path, content=body), 400).code == code


@both
async def test_a_body_may_have_64_kib(at: Service, path: str, good: dict[str, Any], success: int) -> None:
    largest = msgspec.json.encode(good).ljust(MAX_BODY)
    assert (await at.http.post(path, content=largest)).status_code == success
    answer = await at.http.post(path, content=largest + b" ")
    assert refused(answer, 413).code == "body_too_large"
    assert answer.headers["connection"] == "close"


@both
async def test_a_body_of_undeclared_size_is_limited_too(
    at: Service, path: str, good: dict[str, Any], success: int
) -> None:
    async def chunks(n: int) -> AsyncIterator[bytes]:
        yield msgspec.json.encode(good)
        for _ in range(n):
            yield b" " * 1024

    assert (await at.http.post(path, content=chunks(62))).status_code == success
    assert refused(await at.http.post(path, content=chunks(64)), 413).code == "body_too_large"


@both
@pytest.mark.parametrize("size", ["²", "-1", "many", "99999999999999999999"])
async def test_a_strange_content_length_is_no_defect(
    at: Service, path: str, good: dict[str, Any], success: int, size: str
) -> None:
    content, headers = msgspec.json.encode(good), {b"content-length": size.encode("latin-1")}
    response = await at.http.post(path, content=content, headers=headers)
    assert response.status_code == (413 if size.isdecimal() else success)


@both
@pytest.mark.parametrize(
    ("media_type", "accepted"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
async def test_only_json_is_taken(
    at: Service, path: str, good: dict[str, Any], success: int, media_type: str, accepted: bool
) -> None:
    content = msgspec.json.encode(good)
    response = await at.http.post(path, content=content, headers={"content-type": media_type})
    if accepted:
        assert response.status_code == success
    else:
        error = refused(response, 415)
        assert error.code == "unsupported_media_type"
        assert repr(media_type) in error.message


@both
@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 415), ("br, gzip", 415), ("identity", None), ("Identity", None)]
)
async def test_a_compressed_body_is_told_to_be_one(
    at: Service, path: str, good: dict[str, Any], success: int, encoding: str, status: int | None
) -> None:
    response = await at.http.post(path, json=good, headers={"content-encoding": encoding})
    if status is None:
        assert response.status_code == success
    else:
        assert refused(response, status).code == "unsupported_encoding"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/predict/it", "/docs/assets/none.js", "/%00", "/v1/../secret"])
async def test_an_unknown_path_is_told_in_the_same_format(at: Service, path: str) -> None:
    assert refused(await at.http.get(path), 404).code == "not_found"


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=x", "lines=1-2", "bytes=0-10"])
async def test_a_file_of_the_documentation_comes_whole_whatever_part_is_asked_for(at: Service, wanted: str) -> None:
    response = await at.http.get("/docs/assets/swagger-ui.css", headers={"range": wanted})
    assert (response.status_code, len(response.content) > 100_000) == (200, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PREDICT, "POST"),
        ("DELETE", SCREENS, "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/healthz/ready", "GET"),
    ],
)
async def test_a_wrong_method_is_told_in_the_same_format(at: Service, method: str, path: str, allowed: str) -> None:
    response = await at.http.request(method, path)
    assert refused(response, 405).code == "method_not_allowed"
    assert allowed in response.headers["allow"].split(", ")


@both
async def test_a_client_that_goes_away_is_no_defect(at: Service, path: str, good: dict[str, Any], success: int) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await at.ingress.app()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert msgspec.json.decode(sent[1]["body"])["error"]["code"] == "disconnected"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
moments = st.datetimes(timezones=st.just(UTC) | st.timezones()).map(lambda moment: moment.isoformat())
fields = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.text(max_size=3) | anything,
        "text": st.text() | anything,
        "screen": st.text(max_size=3) | anything,
        "at": moments | anything,
        "request_id": anything,
        "top_k": st.integers(-1, 102) | anything,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([PREDICT, SCREENS]), body=st.binary() | fields.map(msgspec.json.encode))
async def test_no_body_is_a_defect(at: Service, path: str, body: bytes) -> None:
    """The client raises what the application raises; every other answer is in the documented format."""
    response = await at.http.post(path, content=body)
    if response.status_code >= 300:
        assert response.status_code in (400, 422)
        refused(response, response.status_code)


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    decoder = msgspec.json.Decoder(PredictRequest)
    with pytest.raises(ApiError) as caught:
        await decode({"headers": []}, lambda: never, decoder, timeout_s=0.01)
    assert (caught.value.status, caught.value.body.code, caught.value.hang_up) == (400, "body_timeout", True)
