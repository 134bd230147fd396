"""Traces: what a collector receives of which requests."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from deployments.spans import Spans, stage_times
from deployments.tracing import TracingConfig
from tests.unit.collector import Collector, collecting
from tests.unit.plain_graph import MESSAGE, PREDICT, SCREEN, SCREENS, STAGES, Service, answered, refused

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = ({"traceparent": f"00-{TRACE}-{PARENT}-{flag}"} for flag in ("01", "00"))
ROUNDED_NS = 30_000
"""Figures of `Server-Timing` have two decimals of a millisecond."""
milliseconds = st.floats(0, 5000).map(lambda ms: round(ms, 2))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@asynccontextmanager
async def traced(at: Service, endpoint: str, share: float = 0.0) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the traced application; the collector has all spans afterwards."""
    spans = Spans(endpoint, share)
    transport = httpx.ASGITransport(spans.around(at.ingress.app()))
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as http:
        yield http
    spans.close()


def attributes(span: Span) -> dict[str, str | int]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


async def test_a_prediction_is_a_span_of_its_caller_s_trace_with_one_for_each_stage(
    at: Service, collector: Collector
) -> None:
    async with traced(at, collector.url) as http:
        assert answered(await http.post(PREDICT, json=MESSAGE, headers=SAMPLED)).product
    request, *stages = collector.spans(TRACE)
    assert (request.name, request.parent_span_id.hex(), request.kind) == (
        "POST " + PREDICT,
        PARENT,
        Span.SPAN_KIND_SERVER,
    )
    known = {"http.request.method": "POST", "http.route": PREDICT, "http.response.status_code": 200}
    assert attributes(request) == known
    assert {stage.name for stage in stages} == STAGES - {"flow", "total"}
    assert {stage.parent_span_id for stage in stages} == {request.span_id}
    for stage in stages:
        assert request.start_time_unix_nano <= stage.start_time_unix_nano < stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= request.end_time_unix_nano + ROUNDED_NS
    assert b"my card was declined" not in collector.exports[0].SerializeToString()


@pytest.mark.parametrize(
    ("share", "headers", "spans"),
    [
        (0.0, {}, 0),
        (0.0, UNSAMPLED, 0),
        (0.0, {"traceparent": "00-damaged-01"}, 0),
        (1.0, UNSAMPLED, 0),
        (1.0, {"traceparent": "00-damaged-01"}, 1),
        (1.0, {}, 1),
    ],
)
async def test_a_request_without_a_sampled_trace_is_traced_by_chance(
    at: Service, collector: Collector, share: float, headers: dict[str, str], spans: int
) -> None:
    async with traced(at, collector.url, share) as http:
        assert (await http.post(SCREENS, json=SCREEN, headers=headers)).status_code == 202
    found = collector.spans()
    assert [span.name for span in found] == ["POST " + SCREENS] * spans
    assert not any(span.parent_span_id for span in found)


async def test_probes_and_documentation_are_left_out(at: Service, collector: Collector) -> None:
    async with traced(at, collector.url, share=1.0) as http:
        for path in ("/healthz/live", "/v2/health/live", "/openapi.json"):
            assert (await http.get(path, headers=SAMPLED)).status_code == 200
    assert collector.exports == []


async def test_refused_requests_are_traced_and_strangers_invent_no_names(at: Service, collector: Collector) -> None:
    async with traced(at, collector.url, share=1.0) as http:
        assert refused(await http.post(PREDICT, json={"user_id": "ann"}), 422).field == "text"
        assert refused(await http.post("/v1/invented", json=MESSAGE), 404)
        assert refused(await http.request("INVENTED", PREDICT), 405)
    found = [(span.name, attributes(span)["http.response.status_code"]) for span in collector.spans()]
    assert found == [("POST " + PREDICT, 422), ("HTTP", 404), ("HTTP", 405)]
    assert {span.status.code for span in collector.spans()} == {Status.STATUS_CODE_UNSET}
    assert b"invented" not in collector.exports[0].SerializeToString().lower()


async def test_a_failure_is_an_error(collector: Collector) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    spans = Spans(collector.url, 1.0)
    transport = httpx.ASGITransport(spans.around(failing))
    async with httpx.AsyncClient(transport=transport, base_url="http://switchboard") as http:
        assert (await http.get("/v1/models")).status_code == 503
    spans.close()
    assert [span.status.code for span in collector.spans()] == [Status.STATUS_CODE_ERROR]


async def test_answers_come_without_the_collector(at: Service) -> None:
    with collecting() as gone:
        pass
    async with traced(at, gone.url, share=1.0) as http:
        assert answered(await http.post(PREDICT, json=MESSAGE)).product


@pytest.mark.parametrize("endpoint", ["collector:4318", "http://", "http:///v1/traces", "ftp://collector/v1/traces"])
def test_an_endpoint_is_an_url(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        TracingConfig(endpoint=endpoint)


def test_stages_are_where_they_were() -> None:
    timing = (
        "queue;dur=1.00, gather;dur=5.00, preprocess;dur=1.00, cache;dur=3.00, classify;dur=2.00, inference;dur=1.00, "
        "fuse;dur=0.50, decide;dur=0.25, flow;dur=5.75, total;dur=6.75"
    )
    assert stage_times(timing) == {
        "queue": (0, 1),
        "gather": (1, 6),
        "preprocess": (1, 2),
        "cache": (2, 5),
        "classify": (3, 5),
        "inference": (4, 5),
        "fuse": (6, 6.5),
        "decide": (6.5, 6.75),
    }


@given(st.dictionaries(st.sampled_from(sorted(STAGES)), milliseconds))
def test_stages_last_as_long_as_they_say_and_the_decision_ends_last(spent: dict[str, float]) -> None:
    times = stage_times(", ".join(f"{name};dur={ms:.2f}" for name, ms in spent.items()))
    lasted = {name: pytest.approx(ms) for name, ms in spent.items() if ms and name not in ("flow", "total")}
    assert {name: end - start for name, (start, end) in times.items()} == lasted
    assert all(start >= 0 for start, _ in times.values())
    others = [times[name][1] for name in ("queue", "gather", "preprocess", "cache", "fuse") if name in times]
    if "decide" in times:
        assert times["decide"][0] == pytest.approx(max([0.0, *others]))
