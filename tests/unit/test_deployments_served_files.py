"""The files of the served log: when they are written, into which folders, and what happens when that fails."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from deployments.served import ServedBatch
from models.bundle import Bundle
from models.classifier import TextClassifier
from tests.serve.polling import until
from tests.unit.plain_graph import classify_stage, flow
from tests.unit.test_deployments_served_log import log, logged, query

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


@pytest.fixture
async def batch(bundle: Bundle, classifier: TextClassifier, redis: Redis) -> ServedBatch:
    """One served batch of two messages, answered at noon."""
    taken: list[ServedBatch] = []
    stages = replace(flow(bundle, classify_stage(bundle, classifier), redis), record=taken.append)
    await stages.answer([query(1), query(2)], bundle)
    return replace(taken[0], answered_at=NOON)


def test_each_day_has_its_folder(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path)
    served.record(batch)
    served.record(replace(batch, answered_at=NOON + 86_400))
    served.close()
    assert {p.parent.name for p in tmp_path.rglob("*.parquet")} == {"day=2026-11-25", "day=2026-11-26"}
    moments = {row["answered_at"].date() for row in logged(tmp_path)}
    assert moments == {date(2026, 11, 25), date(2026, 11, 26)}


def test_too_many_rows_are_dropped_and_counted(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path, max_pending=4, rotate_s=3600)
    for _ in range(3):
        served.record(batch)
    served.close()
    assert (served.written, served.dropped) == (4, 2)
    assert served.counts()["served_log_dropped_total"] == 2


def test_rows_outlive_a_folder_that_cannot_be_written(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path / "log", rotate_s=3600)
    obstacle = tmp_path / "log" / "day=2026-11-25"
    obstacle.write_text("a file where a folder should be")
    served.record(batch)
    served.close()
    assert (served.written, served.failures, served.pending) == (0, 1, 2)
    obstacle.unlink()
    served.close()
    assert (served.written, served.pending) == (2, 0)


def test_rows_are_written_when_many_or_old_after_a_failure_when_old(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path, rotate_s=3600, rotate_rows=3)
    obstacle = tmp_path / "day=2026-11-25"
    obstacle.write_text("a file where a folder should be")
    for _ in range(2):
        served.record(batch)
    until(lambda: served.failures, lambda failures: failures > 0)
    served.record(batch)
    until(lambda: len(served._batches), lambda untouched: untouched == 0)
    with served._lock:
        assert (served.failures, served.pending) == (1, 6)
    obstacle.unlink()
    served._opened -= 3600
    until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.record(batch)
    until(lambda: len(served._batches), lambda untouched: untouched == 0)
    with served._lock:
        assert served.pending == 2, "few and young"
    served.record(batch)
    until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.close()
    assert (served.written, served.failures) == (10, 1)


def test_a_batch_that_makes_no_rows_is_counted_and_holds_up_no_other(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path)
    served.record(replace(batch, contexts=()))
    served.record(batch)
    served.close()
    assert (served.written, served.failures, served.pending) == (2, 1, 0)


def test_rows_that_wait_go_to_the_folder_of_their_own_day(batch: ServedBatch, tmp_path: Path) -> None:
    served = log(tmp_path, rotate_s=3600)
    obstacle = tmp_path / "day=2026-11-25"
    obstacle.write_text("a file where a folder should be")
    served.record(batch)
    served.record(replace(batch, answered_at=NOON + 86_400))
    served.close()
    assert (served.written, served.failures, served.pending) == (2, 1, 2)
    obstacle.unlink()
    served.close()
    assert served.pending == 0
    for day in (date(2026, 11, 25), date(2026, 11, 26)):
        assert [row["answered_at"].date() for row in logged(tmp_path / f"day={day}")] == [day] * 2


def test_an_old_file_that_cannot_be_deleted_does_not_end_the_log(batch: ServedBatch, tmp_path: Path) -> None:
    (tmp_path / "day=2020-01-01" / "served-a.parquet").mkdir(parents=True)
    served = log(tmp_path, keep_days=7, rotate_rows=1)
    for _ in range(2):
        served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
        until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.close()
    assert served.written == 4
    assert served.failures > 0


def test_a_folder_that_cannot_be_read_for_a_while_does_not_end_the_log(batch: ServedBatch, tmp_path: Path) -> None:
    """As on a network file system whose server restarts; here it is a link to a name that is too long."""
    folder, draft = tmp_path / "served", tmp_path / "draft"
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    served = log(folder, keep_days=7, rotate_s=0.01)
    draft.symlink_to("x" * 300)
    draft.replace(folder)
    served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
    until(lambda: served.failures, lambda failures: failures > 3)
    draft.symlink_to(tmp_path / "disk")
    draft.replace(folder)
    until(lambda: served.pending, lambda rows_left: rows_left == 0)
    served.close()
    assert len(logged(folder)) == served.written == 2


def test_old_files_are_deleted_when_asked_for(batch: ServedBatch, tmp_path: Path) -> None:
    """Drafts of killed processes, too, and the folders of days of which nothing is left."""
    old, older = tmp_path / "day=2020-01-02", tmp_path / "day=2020-01-01"
    for day in (old, older):
        day.mkdir()
        (day / ".served-a.parquet.4f2e").write_bytes(b"half a file")
        pq.write_table(pa.table({"x": np.arange(2)}), day / "served-a.parquet")
    (old / "notes.txt").write_text("not ours")
    served = log(tmp_path, keep_days=7)
    served.record(replace(batch, answered_at=datetime.now(UTC).timestamp()))
    served.close()
    assert [path.name for path in old.iterdir()] == ["notes.txt"]
    (today,) = (day for day in tmp_path.iterdir() if day != old)
    assert len(logged(today)) == 2
