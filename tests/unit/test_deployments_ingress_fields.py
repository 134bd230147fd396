"""Fields that a client may send, and how it is told which it may not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.bundle import Bundle
from tests.unit.plain_graph import MESSAGE, PREDICT, SCREEN, SCREENS, Service, answered, refused


@pytest.mark.parametrize(
    "text", [" ", "\n\t\r ", "\u200b", "\ufeff\u200d\u2060", " \u200b\u00a0 ", "\u0000\u0007", "\u2028"]
)
async def test_a_text_without_visible_character_is_refused(at: Service, text: str) -> None:
    error = refused(await at.predict(user_id="ann", text=text), 422)
    assert (error.code, error.field) == ("invalid_field", "text")


@pytest.mark.parametrize("text", ["?", "\u200b.\u200b", "\U0001f62d", "你"])
async def test_one_visible_character_is_a_text(at: Service, text: str) -> None:
    answered(await at.predict(user_id="ann", text=text))


@pytest.mark.parametrize("character", ["x", "é", "你", "\U0001f62d"])
async def test_a_text_has_4000_characters_at_most_however_many_bytes(at: Service, character: str) -> None:
    answered(await at.predict(user_id="ann", text=character * 4000))
    assert refused(await at.predict(user_id="ann", text=character * 4001), 422).field == "text"


@pytest.mark.parametrize(
    ("path", "good", "field"),
    [
        (PREDICT, MESSAGE, "user_id"),
        (PREDICT, MESSAGE, "request_id"),
        (SCREENS, SCREEN, "user_id"),
        (SCREENS, SCREEN, "screen"),
        (SCREENS, SCREEN, "event_id"),
    ],
)
async def test_identifiers_have_1_to_128_characters(at: Service, path: str, good: dict[str, Any], field: str) -> None:
    for length in (1, 128):
        response = await at.http.post(path, json={**good, field: "ü" * length})
        assert response.status_code < 300
    for length in (0, 129):
        error = refused(await at.http.post(path, json={**good, field: "ü" * length}), 422)
        assert (error.code, error.field) == ("invalid_field", field)


@pytest.mark.parametrize("top_k", [1, 100])
async def test_top_k_within_its_bounds(at: Service, bundle: Bundle, top_k: int) -> None:
    answer = answered(await at.predict(**MESSAGE, top_k=top_k))
    assert len(answer.top) == min(top_k, len(bundle.manifest.labels))


@pytest.mark.parametrize("top_k", [0, -1, 101, 10**30, 1.5, "3", None, True])
async def test_top_k_out_of_its_bounds(at: Service, top_k: object) -> None:
    assert refused(await at.predict(**MESSAGE, top_k=top_k), 422).field == "top_k"


@pytest.mark.parametrize(("path", "good"), [(PREDICT, MESSAGE), (SCREENS, SCREEN)])
async def test_every_missing_or_unknown_field_is_named(at: Service, path: str, good: dict[str, Any]) -> None:
    for field in good:
        rest = {name: value for name, value in good.items() if name != field}
        assert refused(await at.http.post(path, json=rest), 422).field == field
    error = refused(await at.http.post(path, json={**good, "colour": "red"}), 422)
    assert (error.code, error.field) == ("invalid_field", "colour")


async def test_a_moment_may_lie_in_the_past_but_not_in_the_future(at: Service) -> None:
    now = datetime.now(UTC)
    for moment in [
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        now.isoformat(),
        (now + timedelta(minutes=4)).isoformat(),
    ]:
        assert (await at.http.post(SCREENS, json={**SCREEN, "at": moment})).status_code == 202, moment
    for moment in ["9999-12-31T23:59:59-14:00", (now + timedelta(minutes=6)).isoformat(), "2026-01-01T00:00:00", "now"]:
        assert refused(await at.http.post(SCREENS, json={**SCREEN, "at": moment}), 422).field == "at", moment
