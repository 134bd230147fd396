"""From rows to figures, tables and pictures."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loadtests import report
from loadtests.capacity import OTHERS, PARTS, sizing
from loadtests.commands import PAGE, REPORTS, RUNS, exit_code
from loadtests.connections import Tally
from loadtests.figures import GOALS, Goal, goals, over_rounds, ratio, spread
from loadtests.load import figures
from loadtests.overload import as_row
from loadtests.plot import comparison_png, sweep_png

NAMES = ("fastapi", "fastapi_lru", "graph", "graph_inline", "ceiling")
MACHINE = {
    "machine": "one, 2 cores", "versions": {"ray": "2"}, "commit": "abc", "at": "today",
    "command": "scripts/compare --x",
}  # fmt: skip
PNG = b"\x89PNG"


def load(target: str, texts: str, number: int, per_second: float, **case: Any) -> dict[str, Any]:
    figures = {"per_second": per_second, "p50_ms": 2.0, "p99_ms": 9.0, "cached": None, "failures": 0}
    return {"target": target, "texts": texts, "round": number, **case, **figures}


@pytest.fixture
def saved() -> dict[str, Any]:
    """Three rounds in which each target is ten times as fast as the one before it."""
    loads = [
        load(target, texts, number, 100 * 10**rank + number, **case)
        for number, (rank, target), texts in itertools.product(range(3), enumerate(NAMES), ("unique", "zipf"))
        for case in ({"clients": 1}, {"clients": 64}, {"clients": 256}, {"share": "own half", "rate": 50.0})
    ]
    return {
        "machine": "a machine", "versions": {"ray": "1"}, "commit": "abc", "at": "now", "command": "scripts/compare",
        "rounds": 3, "seconds": 5.0, "warm_up_s": 2.0, "generator": "wrk", "generator_limit": 30_000.0,
        "checked": {"checked": 9, "mismatches": 0, "degraded": 0, "refused": 0, "examples": []},
        "targets": {name: name.title() for name in NAMES}, "loads": loads,
        "memory": [{"target": name, "round": 0, "service_mib": 100.0, "redis_mib": 3.0} for name in NAMES],
    }  # fmt: skip


def test_spread_is_median_smallest_and_largest() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([]) is None


def test_ratios_are_taken_round_by_round() -> None:
    rows = [load(t, "zipf", n, v, clients=1) for t, n, v in (("a", 0, 10), ("b", 0, 5), ("a", 1, 30), ("b", 1, 10))]
    rows.append(load("a", "zipf", 2, 99, clients=1))
    assert ratio(rows, "per_second", "a", "b", clients=1) == (2.5, 2.0, 3.0)
    assert ratio(rows, "per_second", "a", "nobody", clients=1) is None


def test_rows_without_the_figure_do_not_count() -> None:
    rows = [load("a", "zipf", 0, 1) | {"p50_ms": None}, load("a", "zipf", 1, 1)]
    assert over_rounds(rows, "p50_ms", target="a") == {1: 2.0}


def test_goals_are_judged(saved: dict[str, Any]) -> None:
    judged = {goal["case"]: goal for goal in goals(saved["loads"], saved["memory"])}
    assert len(judged) == len(GOALS)
    busy = judged["all misses, 64 clients, (b) / FastAPI"]
    assert (busy["value"][0], busy["met"]) == (pytest.approx(100, rel=0.02), "yes")
    assert judged["Zipf, 256 clients, (b) / ceiling"]["met"] == "no"
    assert judged["memory at rest, Redis included, (b)"]["value"] == (103.0, 103.0, 103.0)
    assert judged["one client, median, (b)"]["met"] == "yes"


@pytest.mark.parametrize(
    ("at_least", "value", "met"),
    [
        (True, (5.0, 4.0, 6.0), "yes"),
        (True, (5.0, 3.9, 6.0), "median only"),
        (True, (3.9, 3.0, 6.0), "no"),
        (False, (3.0, 2.0, 4.0), "yes"),
        (False, (3.0, 2.0, 4.1), "median only"),
        (False, (4.1, 2.0, 5.0), "no"),
    ],
)
def test_a_goal_is_met_where_every_round_reaches_it(at_least: bool, value: tuple[float, ...], met: str) -> None:
    goal = Goal("case", "ms", 4.0, at_least, lambda rows, memory: None)
    middle, low, high = value
    assert goal.met((middle, low, high)) == met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {(goal["value"], goal["met"]) for goal in goals([], [])} == {(None, None)}


def test_the_page_gets_the_tables_between_its_marks(saved: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(saved))
    tables = report.markdown(report.load(tmp_path / "compare.json"))
    assert "| unique | 64 | 101 (100–102) | 1,001 (1,000–1,002) | 10,001 (10,000–10,002) |" in tables
    assert "| unique | own half | 2 / 9 at 50/s |" in tables
    begin, end = (f"<!-- scripts/compare: {which} -->" for which in ("begin", "end"))
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    once = report.insert(page, tables)
    assert (once.startswith("before\n"), once.endswith("after\n"), "old" in once) == (True, True, False)
    assert report.insert(once, tables) == once


def test_failed_requests_are_in_the_tables_and_change_the_exit_code(saved: dict[str, Any]) -> None:
    assert "Failed requests of the loads: 0." in report.markdown(saved)
    assert "failed |" not in report.markdown(saved)
    for row in saved["loads"]:
        if (row["target"], row["texts"]) == ("graph", "unique"):
            row["failures"] = 2
    tables = report.markdown(saved)
    assert "Failed requests of the loads: 24." in tables
    assert "| unique | 64 | 101 (100–102) | 1,001 (1,000–1,002) | 10,001 (10,000–10,002), 6 failed |" in tables
    assert tables.count(", 6 failed") == 4
    line = {"mismatches": 0, "refused": 0, "failures": 0, "checked": 9, "degraded": 1}
    changes = ({"failures": 1}, {"refused": 1}, {"mismatches": 1}, {"checked": 0}, {"degraded": 2})
    assert (exit_code(line), [exit_code(line | change) for change in changes]) == (0, [1] * 5)


def test_the_tables_name_the_bundle(saved: dict[str, Any]) -> None:
    assert "; commit abc; now. `scripts/compare`" in report.markdown(saved)
    assert "; commit abc; bundle b95; now. `scripts/compare`" in report.markdown(saved | {"bundle": "b95"})


@pytest.mark.parametrize("option", REPORTS)
def test_the_page_has_the_tables_of_the_saved_run(option: str) -> None:
    name, tables = REPORTS[option]
    page = PAGE.read_text(encoding="utf-8")
    assert report.insert(page, tables(report.load(RUNS / name)), option) == page


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no lines"):
        report.insert("a page", "tables")


@pytest.mark.parametrize("option", REPORTS)
def test_the_pages_marks_are_there(option: str) -> None:
    before, after = PAGE.read_text(), report.insert(PAGE.read_text(), "tables", option)
    begin, end = (f"<!-- scripts/compare{option}: {which} -->" for which in ("begin", "end"))
    assert f"{begin}\n\ntables\n{end}" in after
    assert before.partition(begin)[0] == after.partition(begin)[0]
    assert before.partition(end)[2] == after.partition(end)[2]


def test_pictures_are_drawn(saved: dict[str, Any], tmp_path: Path) -> None:
    comparison_png(saved, tmp_path / "compare.png")
    rows = [{"target": "graph", "value": value, "per_second": 9.0, "p50_ms": 1.0} for value in (1, 10)]
    sweeps = {name: {"title": name, "unit": "x", "base": 2, "rows": rows} for name in ("a", "b", "c", "d")}
    sweep_png({"targets": {"graph": "Graph"}, "sweeps": sweeps}, tmp_path / "sweep.png")
    assert {path.read_bytes()[:4] for path in tmp_path.iterdir()} == {PNG}


def test_a_sweep_is_a_table_for_each_quantity() -> None:
    part = {"title": "Length", "unit": "words", "rows": [{"target": "g", "value": 4, "per_second": 9, "hits": 0.5}]}
    head = {**MACHINE, "seconds": 3.0, "generator": "wrk"}
    tables = report.sweep_markdown({**head, "targets": {"g": "Graph"}, "sweeps": {"length": part}})
    assert "one, 2 cores; ray 2; commit abc; today. `scripts/compare --x`: 3 s a load, by wrk." in tables
    assert "| words | service | per_second | hits |" in tables
    assert "| 4 | Graph | 9 | 0.5 |" in tables


def test_a_capacity_is_costs_replicas_and_sizes() -> None:
    costs = {**dict.fromkeys(PARTS, 0.0001), OTHERS: 0.0001}
    tables = report.capacity_markdown(
        {
            **MACHINE,
            "clients": 64,
            "cores": 2,
            "core_hour": 0.05,
            "milliseconds_a_message": {"Ingress": 0.3},
            "replicas": {"1": {"predicted_per_second": 500.4, "per_second": 480.0, "p50_ms": 9.5}},
            "sizing": [sizing(costs, 100_000, 0.8, 0.05)],
        }
    )
    assert "| Ingress | 0.3 |" in tables
    assert "| 1 | 500 | 480 | 9.5 |" in tables
    assert "Cost at 0.05 a core and hour" in tables
    assert "| 100,000 | 80% | 17 | 17 | 17 | 17 | 4 | 17 | 17 | 104 | 3,796 |" in tables


def test_an_overload_is_what_was_answered_in_time_and_what_the_others_were_told() -> None:
    tally = Tally([0.1] * 30 + [2.5] * 10, Counter({200: 40, 429: 20, 504: 4, 503: 1}), dropped=2, seconds=2.0)
    row = as_row(figures(tally, 2.0), 33.4)
    assert row == {
        "offered": 33, "in_time": 15.0, "per_second": 20.0, "refused": 10.0, "late": 2.0, "failures": 3,
        "p50_ms": 100.0, "p99_ms": 2500.0,
    }  # fmt: skip
    rows = [{"target": "graph", "share": 1.2, **row}]
    page = report.overload_markdown({**MACHINE, "seconds": 10, "targets": {"graph": "Switchboard"}, "rows": rows})
    assert page.splitlines()[-1] == "| Switchboard | 33/s | 120% | 15/s | 20/s | 10/s | 2/s | 3 | 100 | 2,500 |"
