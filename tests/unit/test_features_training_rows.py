"""Training rows on disk: training reads them back, and half a file is never seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.training_rows import TrainingRow, write_rows
from models.data import load

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
rows = st.builds(
    TrainingRow,
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    product=names.map(str.strip).filter(lambda name: name not in ("", "oos")),
    recent_screens=st.lists(names, max_size=5),
    product_usage_60d=st.dictionaries(names, st.integers(1, 10**6), max_size=3),
    user_id=names,
    at=st.just("2026-03-02T00:00:00Z"),
    request_id=st.none() | names,
)
ROW = TrainingRow("hi", "loans", [], {}, "ana", "2026-03-02T00:00:00Z")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=4), st.sampled_from(["set.jsonl", "set.csv"]))
def test_training_reads_what_was_written(tmp_path: Path, rows: list[TrainingRow], name: str) -> None:
    assert write_rows(tmp_path / name, rows) == len(rows)
    read = [(e.text, e.product, [*e.recent_screens], e.product_usage_60d) for e in load(tmp_path / name)]
    assert read == [(row.text, row.product, row.recent_screens, row.product_usage_60d) for row in rows]


@pytest.mark.parametrize("name", ["set.jsonl", "set.csv"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def failing() -> Iterator[TrainingRow]:
        yield ROW
        raise RuntimeError("no more")

    write_rows(tmp_path / "sets" / name, [ROW])
    before = (tmp_path / "sets" / name).read_bytes()
    with pytest.raises(RuntimeError, match="no more"):
        write_rows(tmp_path / "sets" / name, failing())
    assert {path.name: path.read_bytes() for path in (tmp_path / "sets").iterdir()} == {name: before}
