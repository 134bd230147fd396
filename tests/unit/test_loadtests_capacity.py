"""The capacity model: what follows from the processor seconds of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.capacity import OTHERS, PARTS, UTILISATION, sizing, throughput

COSTS = {**dict.fromkeys(PARTS, 0.0001), "Classifier": 0.001, "Ingress": 0.0005, OTHERS: 0.0001}


def test_one_classifier_is_the_bottleneck_of_many_cores() -> None:
    assert throughput(COSTS, 1, cores=16) == pytest.approx(1000)
    assert throughput(COSTS, 2, cores=16) == pytest.approx(2000)


def test_more_classifiers_than_the_ingress_can_feed_do_not_help() -> None:
    assert throughput(COSTS, 10, cores=64) == pytest.approx(1 / COSTS["Ingress"])


def test_few_cores_bound_everything() -> None:
    assert throughput(COSTS, 2, cores=1) == pytest.approx(1 / sum(COSTS.values()))


@given(rate=st.floats(1, 1e6), hits=st.floats(0, 1))
def test_no_replica_is_busier_than_wanted(rate: float, hits: float) -> None:
    size = sizing(COSTS, rate, hits, 0.04)
    for part, replicas in size["replicas"].items():
        load = rate * COSTS[part] * (1 - hits if part == "Classifier" else 1)
        assert load <= UTILISATION * replicas * (1 + 1e-9)
        assert replicas == 1 or load > UTILISATION * (replicas - 1) * (1 - 1e-9)
    assert set(size["replicas"]) == set(PARTS) - {"load generator"}


def test_hits_spare_classifiers_only() -> None:
    cold, warm = (sizing(COSTS, 10_000, hits, 0.04)["replicas"] for hits in (0.0, 0.8))
    assert (cold.pop("Classifier"), warm.pop("Classifier")) == (17, 4)
    assert cold == warm


def test_cores_cost_by_the_hour() -> None:
    size = sizing(COSTS, 1_000, 0.0, core_hour=0.1)
    assert size["cores"] == 4
    assert size["cost_a_month"] == 4 * 0.1 * 730
