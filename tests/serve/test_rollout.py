"""A changed file, deployed while customers write: no answer is lost, and the new settings are in them."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from local_redis import LocalRedis
from ports import free_port

from tests.serve.conftest import ROOT, command, running, write_config

NEW_DESK = "cards_night_shift"
KNOWN = "my credit card was declined"


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


class Customers:
    """Each writes the known text and new ones in turn, on one connection, until told to stop."""

    def __init__(self, address: str, number: int) -> None:
        self.answers: list[tuple[int, str]] = []
        """Status and desk, in the order in which they came."""
        self._address, self._ended, self._more = address, threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(number)]

    def __enter__(self) -> "Customers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _write(self, customer: int) -> None:
        with httpx.Client(base_url=self._address, timeout=30) as client:
            for number in count():
                if self._ended.wait(0.02):
                    return
                text = KNOWN if number % 2 else f"where is my transfer {customer} of {number}"
                answer = client.post("/v1/predict", json={"user_id": f"customer{customer}", "text": text})
                desk = answer.json()["action"]["desk"] if answer.is_success else answer.text
                with self._more:
                    self.answers.append((answer.status_code, desk))
                    self._more.notify_all()

    def wait_for(self, holds: Callable[[list[tuple[int, str]]], bool], timeout_s: float = 240.0) -> None:
        with self._more:
            assert self._more.wait_for(lambda: holds(self.answers), timeout_s), self.answers[-5:]


def deploy(file: Path, dashboard_port: int) -> None:
    serve = Path(sys.executable).with_name("serve")
    done = subprocess.run(
        [serve, "deploy", "-a", f"http://127.0.0.1:{dashboard_port}", file],
        cwd=ROOT, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_deploy_loses_no_answer(tmp_path: Path, address: str, dashboard_port: int) -> None:
    changed = write_config(tmp_path / "changed.yaml", desks={"credit_card": NEW_DESK})
    with Customers(address, 3) as customers:
        customers.wait_for(lambda answers: len(answers) >= 20)
        deploy(changed, dashboard_port)
        customers.wait_for(lambda answers: answers[-1][1] == NEW_DESK)
        replaced = len(customers.answers)
        customers.wait_for(lambda answers: len(answers) >= replaced + 100)
    failed = [answer for answer in customers.answers if answer[0] != httpx.codes.OK]
    assert not failed, f"{len(failed)} of {len(customers.answers)}: {failed[:3]}"
    assert (200, "cards") in customers.answers
