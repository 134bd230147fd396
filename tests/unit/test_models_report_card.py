"""What the report tells of a GPU: a table of its own, which the picture of the steps leaves alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.bundle import BundleError
from models.report import section, store, write_report
from models.report_page import BEGIN, END, points
from tests.unit.tiny_run import Trained, trained

SIZES = (1, 8, 32, 128)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run: Trained = trained(tmp_path_factory.getbasetemp())
    return dict(json.loads((run.run_folder / "run.json").read_text()))


def quantised(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The record as if another kind of quantisation had been asked for."""
    training = record["training"]
    return record | {"training": training | {"recipe": training["recipe"] | {"quantization": kind}}}


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return record | {"networks": {name: kept for name, kept in record["networks"].items() if name not in names}}


def timed(machine: str, rates: dict[str, int], sizes: Sequence[int] = (1, 8, 32), **copy: float) -> dict[str, Any]:
    """What the bench tells of networks that answer so many messages a second."""
    networks = {
        name: {f"batch_{n}": {"p50_ms": 0.5 + n / 100, "p99_ms": 0.75 + n / 100} | copy for n in sizes}
        | {"messages_per_second": rate}
        for name, rate in rates.items()
    }
    return {"machine": machine, "tokens": 16, "networks": networks}


def on_card(rates: dict[str, int], sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    return timed("a card", rates, sizes, copy_ms=0.0625)


CPU = timed("a processor", {"teacher": 200, "pruned": 600, "int8": 1000, "sparse_int8": 1200})
CARD = on_card({"fp16": 90_000, "pruned": 40_000, "teacher_fp16": 25_500, "teacher": 10_000})


def table(record: dict[str, Any], bench: dict[str, Any], first: str = "on the GPU") -> list[list[str]]:
    """The cells of the table whose heading begins with that word."""
    lines = list(section({"run": record, "bench": bench}))
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = lines[begin : lines.index("", begin)]
    return [row.strip("| ").split(" | ") for row in (rows[0], *rows[2:])]


def test_networks_on_the_card_have_a_table_in_the_order_of_the_steps(record: dict[str, Any]) -> None:
    assert table(record, {"cpu": CPU, "cuda": CARD}) == [
        [
            "on the GPU", "ms (p50), batch 1", "batch 8", "batch 32", "batch 128",
            "ms (p99), batch 1", "copy ms, batch 32", "messages/s", "CPU cores with int8",
        ],
        ["teacher, fp32", "0.51", "0.58", "0.82", "1.78", "0.76", "0.062", "10000", "10.0"],
        ["teacher, fp16", "0.51", "0.58", "0.82", "1.78", "0.76", "0.062", "25500", "25.5"],
        ["pruned, fp32", "0.51", "0.58", "0.82", "1.78", "0.76", "0.062", "40000", "40.0"],
        ["fp16", "0.51", "0.58", "0.82", "1.78", "0.76", "0.062", "90000", "90.0"],
    ]  # fmt: skip


def test_every_row_of_the_table_is_as_wide_as_its_heading(record: dict[str, Any]) -> None:
    lines = [*section({"run": record, "bench": {"cpu": CPU, "cuda": CARD}})]
    begin = next(i for i, line in enumerate(lines) if line.startswith("| on the GPU |"))
    assert {line.count("|") for line in lines[begin : lines.index("", begin)]} == {10}
    assert lines[begin - 1] == ""


def test_table_says_what_its_rates_are(record: dict[str, Any]) -> None:
    told = " ".join(section({"run": record, "bench": {"cpu": CPU, "cuda": CARD}}))
    assert "Timed on a card, cuda, 16 tokens a message." in told
    assert "messages/s on the GPU: the best of all batch sizes, without the copy" in told


def test_larger_batches_are_shown_where_they_were_timed(record: dict[str, Any]) -> None:
    heads, row = table(record, {"cpu": CPU, "cuda": on_card({"teacher": 10_000}, (1, 8, 32))})
    assert heads[1:5] == ["ms (p50), batch 1", "batch 8", "batch 32", "ms (p99), batch 1"]
    assert row[1:5] == ["0.51", "0.58", "0.82", "0.76"]


@pytest.mark.parametrize("bench", [{}, {"cpu": CPU | {"tokens": 64}}, {"cpu": timed("a processor", {"static": 900})}])
def test_cores_are_told_only_where_the_same_messages_were_timed_on_a_cpu(
    record: dict[str, Any], bench: dict[str, Any]
) -> None:
    heads, *rows = table(record, bench | {"cuda": CARD})
    assert heads[-1] == "messages/s"
    assert [row[-1] for row in rows] == ["10000", "25500", "40000", "90000"]
    assert "CPU cores" not in " ".join(section({"run": record, "bench": bench | {"cuda": CARD}}))


def test_card_is_compared_with_the_fastest_network_that_a_cpu_may_serve(record: dict[str, Any]) -> None:
    served = quantised(without(record, "int8"), "fp16")
    heads, *_, row = table(served, {"cpu": timed("a processor", {"teacher": 200, "pruned": 600}), "cuda": CARD})
    assert heads[-1] == "CPU cores with pruned"
    assert row[-1] == "150.0"


def test_half_precision_is_called_served_where_it_is(record: dict[str, Any]) -> None:
    _, *beside = (row[0] for row in table(record, {"cpu": CPU, "cuda": CARD}, "network"))
    assert beside[:4] == ["teacher, fp32", "teacher, fp16", "student, fp32", "pruned, fp32"]
    assert beside[4:6] == ["fp16", "**int8 (served)**"]
    served = quantised(without(record, "int8"), "fp16")
    for first in ("network", "on the GPU"):
        names = [row[0] for row in table(served, {"cuda": CARD}, first)]
        assert "**fp16 (served)**" in names
        assert "fp16" not in names


def test_networks_on_the_card_alone_are_no_points(record: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cuda", CARD)
    assert points(write_report(tmp_path / "runs", page)) == []
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", CPU)
    found = points(write_report(tmp_path / "runs", page))
    assert [name for name, *_ in found] == ["teacher", "pruned", "int8"]
    assert {milliseconds for *_, milliseconds in found} == {0.51}


def test_half_precision_is_a_point_only_where_it_is_served(record: dict[str, Any]) -> None:
    for served, wanted in ((record, []), (quantised(without(record, "int8"), "fp16"), ["fp16"])):
        bench = {"cpu": timed("a processor", {"fp16": 100, "teacher_fp16": 50})}
        lines = section({"run": served, "bench": bench})
        assert [name for name, *_ in points({"tiny": "\n".join(lines)})] == wanted


def test_a_run_without_a_card_has_no_such_table(record: dict[str, Any]) -> None:
    assert "GPU" not in " ".join(section({"run": record, "bench": {"cpu": CPU}}))


def test_runs_from_before_there_was_half_precision_beside_them_are_told_as_before(record: dict[str, Any]) -> None:
    old = without(record, "fp16", "teacher_fp16")
    names = [row[0] for row in table(old, {"cpu": CPU}, "network")]
    assert names == [
        "network", "teacher, fp32", "student, fp32", "pruned, fp32", "**int8 (served)**", "int8, static ranges",
        "pruned, 80 % of weights zero, fp32", "the same, int8",
    ]  # fmt: skip


def test_a_run_without_a_network_on_the_card_is_damaged(record: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cuda", on_card({}))
    with pytest.raises(BundleError, match=r"tiny\.json is damaged"):
        write_report(tmp_path / "runs", page)
