"""Feedback joined with what was served: labelled rows, and counts of what could not be used."""

import json
import random
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from features.bundled import bundled_preprocessor
from features.feedback import Collected, Feedback, collect, feedback_in_file, feedback_in_stream, feedback_set
from features.rows import DataError
from features.schema import FEEDBACK_STREAM, UserFeatures
from models.data import load
from tests.unit.offline_world import NOON
from tests.unit.served_world import Row, served_row, write_log

PREPROCESSOR = bundled_preprocessor()
FEATURES = UserFeatures(("home", "Card_Limit"), {"loans": 2000, "security": 1})


def request(number: int, text: str | None = "hi") -> Row:
    at = NOON + timedelta(hours=number)
    row = served_row(f"r{number}", "ana", FEATURES, text or "hi", PREPROCESSOR)
    return row | {"answered_at": at, "text": text}


def said(number: int, product: str, after_s: float = 0) -> Feedback:
    return Feedback(f"r{number}", product, NOON + timedelta(hours=number, seconds=after_s))


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestSet:
    def test_feedback_is_on_the_last_answer_before_it_where_a_request_id_comes_twice(self, tmp_path: Path) -> None:
        rows = [
            request(3, "mine"),
            request(2, "older") | {"request_id": "r3"},
            request(9, "later") | {"request_id": "r3"},
        ]
        log = write_log(tmp_path / "log", rows)
        summary = feedback_set(collect([said(3, "loans", 60)]), log, tmp_path / "set.jsonl")
        assert [row["text"] for row in written(tmp_path / "set.jsonl")] == ["mine"]
        assert summary["unknown_requests"] == 0

    def test_feedback_before_an_answer_is_on_it_if_a_clock_that_is_a_minute_slow_explains_that(
        self, tmp_path: Path
    ) -> None:
        log = write_log(tmp_path / "log", [request(1)])
        assert feedback_set(collect([said(1, "loans", -60)]), log, tmp_path / "set.jsonl")["rows"] == 1
        with pytest.raises(DataError, match="unknown requests 1"):
            feedback_set(collect([said(1, "loans", -61)]), log, tmp_path / "set.jsonl")

    @pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:30Z", "9999-12-31T23:59:30-23:59"])
    def test_feedback_of_any_time_is_on_an_answer_before_it_or_on_none(self, tmp_path: Path, at: str) -> None:
        (tmp_path / "feedback.jsonl").write_text(f'{{"request_id": "r1", "product": "loans", "at": "{at}"}}')
        log = write_log(tmp_path / "log", [request(1)])
        feedback = feedback_in_file(tmp_path / "feedback.jsonl")
        if at > "2":
            assert feedback_set(feedback, log, tmp_path / "set.jsonl")["rows"] == 1
        else:
            with pytest.raises(DataError, match="unknown requests 1"):
                feedback_set(feedback, log, tmp_path / "set.jsonl")

    def test_none_that_can_be_used_is_an_error_that_leaves_the_file_as_it_was(self, tmp_path: Path) -> None:
        (tmp_path / "set.jsonl").write_text("earlier")
        log = write_log(tmp_path / "log", [request(1, None), request(3)])
        feedback = Collected({f"r{i}": said(i, "loans") for i in (1, 8)}, 4, 3)
        counts = r"\(feedback 4, duplicates 2, malformed 3, unknown requests 1, without text 1\)"
        with pytest.raises(DataError, match=counts):
            feedback_set(feedback, log, tmp_path / "set.jsonl")
        assert (tmp_path / "set.jsonl").read_text() == "earlier"

    def test_rows_are_as_served_with_the_newest_label(self, tmp_path: Path) -> None:
        log = write_log(tmp_path / "log", [request(20), request(3, "ho"), request(5)])
        feedback = collect([said(20, "loans", 5), said(3, "security"), said(20, "insurance", 4), said(3, "transfers")])
        summary = feedback_set(feedback, log, tmp_path / "set.jsonl")
        context = {
            "recent_screens": ["home", "Card_Limit"],
            "product_usage_60d": {"loans": 2000, "security": 1},
            "user_id": "ana",
        }
        assert written(tmp_path / "set.jsonl") == [
            {"text": "ho", "product": "transfers", **context, "at": "2026-03-02T15:00:00.000000Z", "request_id": "r3"},
            {"text": "hi", "product": "loans", **context, "at": "2026-03-03T08:00:00.000000Z", "request_id": "r20"},
        ]
        assert [e.product for e in load(tmp_path / "set.jsonl")] == ["transfers", "loans"]
        counts = {"rows": 2, "degraded": 0, "feedback": 4, "duplicates": 2, "malformed": 0}
        assert summary == {"out": str(tmp_path / "set.jsonl"), **counts, "unknown_requests": 0, "without_text": 0}

    def test_what_cannot_be_used_is_counted(self, tmp_path: Path) -> None:
        down = {
            "features_at": None,
            "degraded": ["recent_screens", "product_usage_60d"],
            "recent_screens": [],
            "product_usage_60d": [],
        }
        log = write_log(tmp_path / "log", [request(1, None), request(2, None), request(3) | down])
        (tmp_path / "chats.csv").write_text("request_id,text\nr2,from elsewhere\n,other\n")
        feedback = Collected({f"r{i}": said(i, "loans") for i in (1, 2, 3, 8, 9)}, 7, 4)
        summary = feedback_set(feedback, log, tmp_path / "set.jsonl", tmp_path / "chats.csv")
        assert [(row["request_id"], row["text"]) for row in written(tmp_path / "set.jsonl")] == [
            ("r2", "from elsewhere"),
            ("r3", "hi"),
        ]
        counts = {"rows": 2, "degraded": 1, "feedback": 7, "duplicates": 2, "malformed": 4}
        assert summary == {"out": str(tmp_path / "set.jsonl"), **counts, "unknown_requests": 2, "without_text": 1}

    def test_of_a_request_id_that_came_twice_the_later_answer_counts(self, tmp_path: Path) -> None:
        log = write_log(tmp_path / "log", [request(1, "old"), request(30, "new") | {"request_id": "r1"}])
        summary = feedback_set(collect([said(1, "loans", 40 * 3600)]), log, tmp_path / "set.jsonl")
        assert (summary["rows"], written(tmp_path / "set.jsonl")[0]["text"]) == (1, "new")


class TestSources:
    async def test_the_stream_is_read_in_pages(self, redis: Redis) -> None:
        numbers = [number % 1200 for number in range(2500)]
        random.Random(0).shuffle(numbers)
        pipe = redis.pipeline()
        for i, number in enumerate(numbers):
            at = (NOON + timedelta(seconds=i)).astimezone(UTC).isoformat()
            pipe.xadd(FEEDBACK_STREAM, {"request_id": f"r{number}", "product": f"p{i}", "at": at})
        pipe.xadd(FEEDBACK_STREAM, {"request_id": "r1"})
        pipe.xadd(FEEDBACK_STREAM, {"request_id": "r1", "product": "loans", "at": "noon"})
        pipe.xadd(FEEDBACK_STREAM, {"request_id": "r1", "product": " \n", "at": "2027-01-01T00:00:00Z"})
        await pipe.execute()
        last = {f"r{number}": f"p{i}" for i, number in enumerate(numbers)}
        found = await feedback_in_stream(redis)
        assert {name: entry.product for name, entry in found.newest.items()} == last
        assert (found.entries, found.malformed) == (2500, 3)

    async def test_no_stream_is_no_feedback(self, redis: Redis) -> None:
        assert await feedback_in_stream(redis) == Collected({}, 0, 0)

    def test_a_file_is_read_and_what_does_not_fit_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "feedback.jsonl"
        file.write_text('{"request_id": "r1", "product": "loans", "at": "2026-03-02T13:00:00Z"}\n')
        assert feedback_in_file(file) == Collected({"r1": said(1, "loans")}, 1)
        file.write_text(file.read_text() + '{"request_id": "r1", "product": "", "at": "2026-03-02T12:00:00Z"}\n')
        with pytest.raises(DataError, match=r"feedback.jsonl:2: .*product"):
            feedback_in_file(file)
