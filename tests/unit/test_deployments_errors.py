from typing import Any

import msgspec
import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.errors import ApiError, Defects, invalid_json
from deployments.protocol import PredictRequest, ScreenEventRequest

GOOD: dict[str, Any] = {"user_id": "ann", "text": "my card"}
SCREEN: dict[str, Any] = {"user_id": "ann", "screen": "card_limit"}


def refusal(body: bytes, wire: type[msgspec.Struct] = PredictRequest) -> ApiError:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(body, type=wire)
    return invalid_json(caught.value)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"text": msgspec.UNSET}, "text", "Object missing required field `text`"),
        ({"user_id": msgspec.UNSET}, "user_id", "Object missing required field `user_id`"),
        ({"colour": "red"}, "colour", "Object contains unknown field `colour`"),
        ({"text": 7}, "text", "Expected `str`, got `int`"),
        ({"text": None}, "text", "Expected `str`, got `null`"),
        ({"user_id": ["ann"]}, "user_id", "Expected `str`, got `array`"),
        ({"text": ""}, "text", "Expected `str` of length >= 1"),
        ({"text": "x" * 4001}, "text", "Expected `str` of length <= 4000"),
        ({"user_id": "x" * 129}, "user_id", "Expected `str` of length <= 128"),
        ({"request_id": ""}, "request_id", "Expected `str` of length >= 1"),
        ({"top_k": 0}, "top_k", "Expected `int` >= 1"),
        ({"top_k": 101}, "top_k", "Expected `int` <= 100"),
        ({"top_k": "3"}, "top_k", "Expected `int`, got `str`"),
        ({"top_k": 2.5}, "top_k", "Expected `int`, got `float`"),
        ({"top_k": True}, "top_k", "Expected `int`, got `bool`"),
    ],
)
def test_a_refusal_names_the_field_once(change: dict[str, Any], field: str, message: str) -> None:
    fields = {name: value for name, value in {**GOOD, **change}.items() if value is not msgspec.UNSET}
    error = refusal(msgspec.json.encode(fields))
    assert (error.status, error.body.code, error.body.field) == (422, "invalid_field", field)
    assert error.body.message == message


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("yesterday", "Invalid RFC3339 encoded datetime"),
        ("2026-02-30T00:00:00Z", "Invalid RFC3339 encoded datetime"),
        ("2026-01-01T00:00:00", "Expected `datetime` with a timezone component"),
        (0, "Expected `datetime | null`, got `int`"),
    ],
)
def test_a_moment_that_is_none_names_its_field(at: object, message: str) -> None:
    error = refusal(msgspec.json.encode({**SCREEN, "at": at}), ScreenEventRequest)
    assert (error.status, error.body.field, error.body.message) == (422, "at", message)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1"])
def test_a_body_that_is_no_object_names_no_field(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.body.code, error.body.field) == (422, "invalid_body", None)
    assert error.body.message.startswith("Expected `object`")


@pytest.mark.parametrize("body", [b"", b"{", b'{"user_id":"ann",}', b"\xef\xbb\xbf{}", b'{"text":"\\ud800"}', b"{} {}"])
def test_a_body_that_is_no_json_is_another_error(body: bytes) -> None:
    wire = msgspec.defstruct("Anything", [("text", str, "")])
    error = refusal(body, wire)
    assert (error.status, error.body.code, error.body.field) == (400, "invalid_json", None)
    assert error.body.message.startswith("the body is not valid JSON: ")


async def test_an_answer_that_has_begun_gets_no_second_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the disk is gone")

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Defects(app)({"type": "http"}, receive, send)
    assert [(message["type"], message["status"]) for message in sent] == [("http.response.start", 200)]


def test_an_error_answers_in_the_documented_format() -> None:
    response = ApiError(429, "overloaded", "too many", retry_after_s=2).response()
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"
    assert response.headers["content-type"] == "application/json"
    assert msgspec.json.decode(response.body) == {"error": {"code": "overloaded", "message": "too many"}}
    named = ApiError(422, "invalid_field", "too long", "text").response()
    assert "retry-after" not in named.headers
    assert msgspec.json.decode(named.body)["error"]["field"] == "text"
