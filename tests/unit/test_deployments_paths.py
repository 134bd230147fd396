"""Paths of the API with a slash at their end, through the whole application."""

import pytest

from tests.unit.plain_graph import MESSAGE, PREDICT, Service, answered


@pytest.mark.parametrize("path", ["/v1/models", "/healthz/live", "/v2", "/v2/health/live", "/v2/models/production"])
async def test_a_slash_at_the_end_of_a_path_changes_nothing(at: Service, path: str) -> None:
    """A redirect would name the scheme that the ingress sees, which is not that of a proxy with TLS in front of it."""
    plain, slashed = await at.http.get(path), await at.http.get(f"{path}/")
    assert (plain.status_code, slashed.status_code, slashed.content) == (200, 200, plain.content)


async def test_a_message_may_be_posted_with_a_slash_at_the_end_of_the_path(at: Service) -> None:
    answered(await at.http.post(f"{PREDICT}/", json=MESSAGE))
    feedback = {"request_id": "r", "product": "loans"}
    assert (await at.http.post("/v1/feedback/", json=feedback)).status_code == 202
    assert at.ingress.requests.counts()["requests_total", "status", "200"] == 1
