"""Customers who write while something is deployed."""

import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import httpx

from tests.serve.conftest import ROOT

KNOWN = "my credit card was declined"


class Customers:
    """Each writes the known text and new ones in turn, on one connection, until told to stop."""

    def __init__(self, address: str, number: int) -> None:
        self.answers: list[tuple[int, str, str]] = []
        """Status, desk and version of the model, in the order in which they came."""
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
        with httpx.Client(base_url=self._address, timeout=60) as client:
            for number in count():
                if self._ended.wait(0.02):
                    return
                text = KNOWN if number % 2 else f"where is my transfer {customer} of {number}"
                answer = client.post("/v1/predict", json={"user_id": f"customer{customer}", "text": text})
                said = answer.json() if answer.is_success else {}
                desk = said["action"]["desk"] if said else answer.text
                with self._more:
                    self.answers.append((answer.status_code, desk, said.get("model_version", "")))
                    self._more.notify_all()

    def wait_for(self, holds: Callable[[list[tuple[int, str, str]]], bool], timeout_s: float = 240.0) -> None:
        with self._more:
            assert self._more.wait_for(lambda: holds(self.answers), timeout_s), self.answers[-5:]

    def require_answers(self) -> None:
        """Every request was answered."""
        failed = [answer for answer in self.answers if answer[0] != httpx.codes.OK]
        assert not failed, f"{len(failed)} of {len(self.answers)}: {failed[:3]}"


def deploy(file: Path, dashboard_port: int) -> None:
    """`serve deploy FILE`, which must succeed."""
    serve = Path(sys.executable).with_name("serve")
    done = subprocess.run(
        [serve, "deploy", "-a", f"http://127.0.0.1:{dashboard_port}", file],
        cwd=ROOT, text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
