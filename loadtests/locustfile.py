"""Locust users: they browse some screens, write, read the answer, and at times write again."""

import os
import random
from uuid import uuid4

from locust import HttpUser, between, task

from loadtests.traffic import Zipf, chats

_rng = random.Random(0)
_chats = chats()
_rng.shuffle(_chats)
_popular = Zipf(len(_chats), 1.0, _rng)


class Customer(HttpUser):
    """One of 300 demo users at a time."""

    wait_time = between(0.1, 1.0)

    def on_start(self) -> None:
        self.user_id = f"u{_rng.randint(1, 300)}"
        if key := os.environ.get("SWITCHBOARD_API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"

    @task(5)
    def browse_then_write(self) -> None:
        """Two or three screens, then the message that they lead to."""
        chat = _chats[_popular.draw()]
        for screen in chat.screens:
            event = {"user_id": self.user_id, "screen": screen}
            self.client.post("/v1/events/screens", json=event)
        self._write(chat.text)

    @task(3)
    def write(self) -> None:
        """A message out of the blue."""
        self._write(_chats[_popular.draw()].text)

    @task(1)
    def write_something_new(self) -> None:
        """A message that nobody has sent before, so a cache miss."""
        self._write(f"{_chats[_popular.draw()].text} {uuid4().hex[:6]}")

    def _write(self, text: str) -> None:
        body = {"user_id": self.user_id, "text": text}
        with self.client.post("/v1/predict", json=body, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
            elif answer.json()["degraded"]:
                answer.failure(f"degraded: {answer.json()['degraded']}")
