"""Requests by status, and a histogram that Prometheus can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.request_meter import BOUNDS_S, STAGE_BOUNDS_S, RequestMeter, StageMeter

STATUSES = st.sampled_from([200, 400, 422, 429, 504])
REQUESTS = st.lists(st.tuples(STATUSES, st.floats(0, 10) | st.sampled_from(BOUNDS_S)))


@given(REQUESTS)
def test_every_request_is_in_every_bucket_that_is_wide_enough(requests: list[tuple[int, float]]) -> None:
    meter = RequestMeter()
    for status, seconds in requests:
        meter.note(status, seconds)
    counts = meter.counts()
    for bound in BOUNDS_S:
        assert counts["request_seconds_bucket", "le", str(bound)] == sum(s <= bound for _, s in requests)
    assert counts["request_seconds_bucket", "le", "+Inf"] == counts["request_seconds_count"] == len(requests)
    assert counts["request_seconds_sum"] == pytest.approx(sum(s for _, s in requests))
    for status in {status for status, _ in requests}:
        assert counts["requests_total", "status", str(status)] == sum(s == status for s, _ in requests)


@given(st.lists(st.dictionaries(st.sampled_from(["gather", "fuse"]), st.floats(0, 2000) | st.just(0.0))))
def test_a_stage_is_counted_where_it_took_part(batches: list[dict[str, float]]) -> None:
    meter = StageMeter()
    for milliseconds in batches:
        meter.note(milliseconds)
    counts = meter.counts()
    for stage in ("gather", "fuse"):
        seconds = [spent[stage] / 1000 for spent in batches if spent.get(stage)]
        assert counts.get(("stage_seconds_count", "stage", stage), 0) == len(seconds)
        for bound in STAGE_BOUNDS_S if seconds else ():
            found = counts["stage_seconds_bucket", "stage", stage, "le", str(bound)]
            assert found == sum(s <= bound for s in seconds)
        if seconds:
            assert counts["stage_seconds_sum", "stage", stage] == pytest.approx(sum(seconds))
            assert counts["stage_seconds_bucket", "stage", stage, "le", "+Inf"] == len(seconds)
