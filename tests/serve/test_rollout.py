"""A changed file, deployed while customers write: no answer is lost, and the new settings are in them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_redis import LocalRedis
from ports import free_port

from tests.serve.conftest import command, running, write_config
from tests.serve.customers import Customers, deploy

NEW_DESK = "cards_night_shift"


@pytest.fixture
def dashboard_port() -> int:
    return free_port()


@pytest.fixture
def address(tmp_path: Path, redis_server: LocalRedis, dashboard_port: int) -> Iterator[str]:
    """Of a service that takes `serve deploy`."""
    port, first = free_port(), write_config(tmp_path / "first.yaml")
    dashboard = ["--dashboard", "--dashboard-port", str(dashboard_port)]
    with running(command(tmp_path, port, "--config", str(first), *dashboard, "--served-log", "off"), redis_server.url):
        yield f"http://127.0.0.1:{port}"


def test_a_deploy_loses_no_answer(tmp_path: Path, address: str, dashboard_port: int) -> None:
    changed = write_config(tmp_path / "changed.yaml", desks={"credit_card": NEW_DESK})
    with Customers(address, 3) as customers:
        customers.wait_for(lambda answers: len(answers) >= 20)
        deploy(changed, dashboard_port)
        customers.wait_for(lambda answers: answers[-1][1] == NEW_DESK)
        replaced = len(customers.answers)
        customers.wait_for(lambda answers: len(answers) >= replaced + 100)
    customers.require_answers()
    assert "cards" in {desk for _, desk, _ in customers.answers}
