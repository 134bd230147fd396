"""The mean of the calls under way, and the number of replicas that follows from those of each."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.autoscaling import BATCHES, BUSY, MAX_BUSY, Concurrency, by_batches_in_flight

Metrics = dict[str, dict[str, float]]
waits = st.integers(0, 50).map(lambda quarters: quarters / 4)
steps = st.lists(st.tuples(waits, st.sampled_from(["begin", "end", "read"])), max_size=40)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def measured(*figures: float, name: str = BATCHES) -> Metrics:
    return {name: {f"replica{i}": figure for i, figure in enumerate(figures)}}


def context(metrics: Metrics | Callable[[], Metrics] | None, **changes: Any) -> AutoscalingContext:
    """Of a classifier with three replicas, which Ray's own policy would not change."""
    options: dict[str, Any] = {
        "deployment_id": None, "deployment_name": "Classifier", "app_name": "app", "running_replicas": [],
        "current_num_replicas": 3, "target_num_replicas": 3, "total_num_requests": 4.5, "total_queued_requests": 0.0,
        "aggregated_metrics": metrics, "raw_metrics": None, "policy_state": {}, "current_time": 0.0,
        "capacity_adjusted_min_replicas": 1, "capacity_adjusted_max_replicas": 8,
        "last_scale_up_time": None, "last_scale_down_time": None,
        "config": AutoscalingConfig(target_ongoing_requests=1.5, max_replicas=8),
    }  # fmt: skip
    return AutoscalingContext(**(options | changes))


def test_mean_is_weighted_by_time() -> None:
    load = Concurrency(clock := Clock())
    clock.now += 4
    with load:
        clock.now += 3
        with load:
            clock.now += 1
        clock.now += 2
    assert load.read()[BATCHES] == (0 * 4 + 1 * 3 + 2 * 1 + 1 * 2) / 10


def test_reading_begins_anew_with_the_calls_under_way() -> None:
    load = Concurrency(clock := Clock())
    with load:
        clock.now += 10
        assert load.read()[BATCHES] == 1
        clock.now += 1
    clock.now += 3
    assert load.read()[BATCHES] == 0.25
    clock.now += 1
    assert load.read()[BATCHES] == 0


def test_two_readings_at_once_give_the_calls_under_way() -> None:
    load = Concurrency(Clock())
    assert load.read()[BATCHES] == 0
    with load, load:
        assert load.read()[BATCHES] == load.read()[BATCHES] == 2
    assert load.read()[BATCHES] == 0


def test_a_call_that_fails_counts_as_long_as_it_lasts() -> None:
    load = Concurrency(clock := Clock())

    def fail() -> None:
        with load:
            clock.now += 2
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    clock.now += 2
    assert load.read()[BATCHES] == 0.5


@given(steps)
def test_mean_is_the_integral_of_the_calls_over_the_time_since_the_last_reading(steps: list[tuple[float, str]]) -> None:
    load = Concurrency(clock := Clock())
    calls: list[ExitStack] = []
    passed: list[tuple[float, int]] = []
    for wait, step in [*steps, (1.0, "read")]:
        clock.now += wait
        passed.append((wait, len(calls)))
        if step == "begin":
            calls.append(ExitStack())
            calls[-1].enter_context(load)
        elif step == "end" and calls:
            calls.pop().close()
        elif step == "read":
            span = sum(wait for wait, _ in passed)
            area = sum(wait * under_way for wait, under_way in passed)
            busy = sum(wait for wait, under_way in passed if under_way)
            wanted = {BATCHES: area / span, BUSY: busy / span} if span else {BATCHES: len(calls), BUSY: bool(calls)}
            assert load.read() == wanted
            passed.clear()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.1, 50))
def test_replicas_are_the_batches_of_all_of_them_by_the_target(figures: list[float], target: float) -> None:
    config = AutoscalingConfig(target_ongoing_requests=target)
    wanted, state = by_batches_in_flight(context(measured(*figures), config=config))
    assert wanted == pytest.approx(sum(figures) / target)
    assert state == {}


def test_replicas_are_as_many_as_before_where_each_has_its_target_under_way() -> None:
    assert by_batches_in_flight(context(measured(1.5, 0.5, 2.5)))[0] == 3


def test_no_batches_under_way_ask_for_no_replicas() -> None:
    """What is left is the smallest number that the configuration allows, which is Ray's to see to."""
    assert by_batches_in_flight(context(measured(0.0, 0.0, 0.0)))[0] == 0


@pytest.mark.parametrize(("busy", "wanted"), [((0.4,), 1), ((0.9,), 2), ((0.9, 0.9), 3), ((0.3, 0.3, 0.3), 2)])
def test_replicas_that_are_busy_one_call_after_the_other_get_help(busy: tuple[float, ...], wanted: int) -> None:
    """Classified on the event loop, batches are never seen two at a time."""
    metrics = measured(*busy) | measured(*busy, name=BUSY)
    replicas, _ = by_batches_in_flight(context(metrics))
    assert replicas == pytest.approx(sum(busy) / MAX_BUSY)
    assert math.ceil(replicas) == wanted


def test_figures_that_ray_works_out_when_asked_count_too() -> None:
    assert by_batches_in_flight(context(lambda: measured(3.0, 3.0, 0.0)))[0] == 4


@pytest.mark.parametrize("metrics", [None, {}, {BATCHES: {}}, measured(9.0, name="other")])
@pytest.mark.parametrize("target", [0, 2, 5])
def test_without_figures_replicas_stay_at_their_target_number(metrics: Metrics | None, target: int) -> None:
    assert by_batches_in_flight(context(metrics, target_num_replicas=target)) == (target, {})


def test_without_a_configuration_replicas_stay_at_their_target_number() -> None:
    assert by_batches_in_flight(context(measured(9.0), config=None)) == (3, {})
