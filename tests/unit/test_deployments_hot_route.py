"""The hot route beside Starlette: the same limits, the same errors, another path to them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from deployments.hot_route import HotRoute
from tests.unit.plain_graph import MESSAGE, PREDICT, Service, answered, refused


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(at: Service, method: str) -> None:
    answer = await at.http.request(method, PREDICT)
    assert refused(answer, 405).code == "method_not_allowed"
    assert answer.headers["allow"] == "POST"


async def test_other_paths_are_starlette_s(at: Service) -> None:
    assert (await at.http.get("/healthz/live")).json() == {"status": "live"}
    assert refused(await at.http.post(PREDICT + "/it", json=MESSAGE), 404).code == "not_found"


async def test_it_answers_under_a_prefix(at: Service) -> None:
    transport = httpx.ASGITransport(at.ingress.app(), root_path="/switch")
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        assert answered(await client.post("/switch" + PREDICT, json=MESSAGE)).product


async def test_a_body_in_chunks_is_one_body(at: Service) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"user_id":"ann","text":"my card was declined"}':
            yield bytes([byte])

    answer = await at.http.post(PREDICT, content=chunks(), headers={"content-type": "application/json; charset=utf-8"})
    assert answered(answer).product


async def test_a_defect_is_an_internal_error_without_details(at: Service) -> None:
    async def defective(scope: object, receive: object) -> tuple[bytes, bytes]:
        raise ZeroDivisionError("secret")

    transport = httpx.ASGITransport(HotRoute(PREDICT, defective, at.ingress.app()))
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        answer = await client.post(PREDICT, json=MESSAGE)
    assert refused(answer, 500).code == "internal"
    assert b"secret" not in answer.content


async def test_requests_are_counted_by_status(at: Service) -> None:
    await at.predict(**MESSAGE)
    await at.predict(**MESSAGE)
    await at.http.get(PREDICT)
    await at.http.post(PREDICT, content=b"{")
    await at.http.get("/healthz/live")
    counts = at.ingress.requests.counts()
    assert {key[2]: n for key, n in counts.items() if key[0] == "requests_total"} == {"200": 2, "405": 1, "400": 1}
    assert counts["request_seconds_count"] == 4


async def test_its_whole_path_is_told_once(at: Service) -> None:
    found: list[str] = []
    app = at.ingress.app(found=lambda path, _: found.append(path))
    transport = httpx.ASGITransport(app, root_path="/switch")
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as client:
        await client.get("/switch/healthz/live")
        assert found == []
        for _ in range(3):
            assert answered(await client.post("/switch" + PREDICT, json=MESSAGE)).product
    assert found == ["/switch" + PREDICT]
