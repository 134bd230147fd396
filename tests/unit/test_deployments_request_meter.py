"""Requests by status, and a histogram that Prometheus can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.request_meter import BOUNDS_S, RequestMeter

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
