"""Saved runs of `scripts/compare` as Markdown tables, and their places in docs/performance.md."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadtests.capacity import HOURS_A_MONTH
from loadtests.figures import Spread, goals, over_rounds, spread

MARK = "<!-- scripts/compare{option}: {end} -->"
_TEXTS = {"unique": "unique", "zipf": "Zipf"}


def markdown(report: dict[str, Any]) -> str:
    """All tables of a comparison."""
    parts = [_conditions(report), _goals(report)]
    for figure, title in (
        ("per_second", "Requests per second, closed loop"),
        ("p50_ms", "Median latency, closed loop, ms"),
    ):
        parts.append(f"**{title}**\n\n{_closed(report, figure)}")
    parts.append(f"**Open loop, p50 / p99 in ms**\n\n{_open(report)}")
    parts.append(f"**Share of Zipf texts found in a cache, open loop**\n\n{_hits(report)}")
    parts.append(f"**Memory at rest, MiB**\n\n{_memory(report)}")
    return "\n\n".join(parts) + "\n"


def insert(page: str, tables: str, option: str = "") -> str:
    """A page with the tables between the two marks of an option of `scripts/compare`, such as ` --sweep`.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = (MARK.format(option=option, end=end) for end in ("begin", "end"))
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no lines {begin} and {end}")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def load(file: Path) -> dict[str, Any]:
    """A saved comparison."""
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def _machine(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    code = f"commit {report['commit']}" + (f"; bundle {report['bundle']}" if "bundle" in report else "")
    return f"{report['machine']}; {versions}; {code}; {report['at']}. `{report['command']}`"


def _conditions(report: dict[str, Any]) -> str:
    checked, failed = report["checked"], sum(row["failures"] for row in report["loads"])
    return (
        f"{_machine(report)}: {report['rounds']} rounds, {report['seconds']:g} s a load after "
        f"{report['warm_up_s']:g} s of warm-up; medians over the rounds, smallest and largest in brackets. Load by "
        f"{report['generator']}, whose own limit here is {report['generator_limit']:,.0f} requests per second. "
        f"Answers checked: {checked['checked']:,}; mismatches: {checked['mismatches']}; "
        f"degraded: {checked['degraded']}; refused: {checked['refused']}. "
        f"Failed requests of the loads: {failed}."
    )


def _goals(report: dict[str, Any]) -> str:
    rows = [
        [goal["case"], _cell(goal["value"]), goal["limit"], goal["met"] or "–"]
        for goal in goals(report["loads"], report["memory"])
    ]
    return table(["case", "measured", "target", "met"], rows)


def _closed(report: dict[str, Any], figure: str) -> str:
    loads = [row for row in report["loads"] if "clients" in row]
    rows = []
    for texts, clients in dict.fromkeys((row["texts"], row["clients"]) for row in loads):
        cells = []
        for name in report["targets"]:
            case = {"target": name, "texts": texts, "clients": clients}
            failed = _failed(loads, case) if figure == "per_second" else ""
            cells.append(_cell(spread(list(over_rounds(loads, figure, **case).values()))) + failed)
        rows.append([_TEXTS[texts], clients, *cells])
    return table(["texts", "clients", *report["targets"].values()], rows)


def _open(report: dict[str, Any]) -> str:
    loads = [row for row in report["loads"] if "share" in row]
    rows = []
    for texts, share in dict.fromkeys((row["texts"], row["share"]) for row in loads):
        cells = []
        for name in report["targets"]:
            case = {"target": name, "texts": texts, "share": share}
            rate, p50, p99 = (
                spread(list(over_rounds(loads, f, **case).values())) for f in ("rate", "p50_ms", "p99_ms")
            )
            cells.append(f"{_number(p50)} / {_number(p99)} at {_number(rate)}/s{_failed(loads, case)}" if rate else "–")
        rows.append([_TEXTS[texts], share, *cells])
    return table(["texts", "rate", *report["targets"].values()], rows)


def _failed(loads: Sequence[dict[str, Any]], case: dict[str, Any]) -> str:
    """How many requests of a case failed in all rounds, for the end of a cell; nothing of none."""
    failed = sum(over_rounds(loads, "failures", **case).values())
    return f", {failed:,.0f} failed" if failed else ""


def _hits(report: dict[str, Any]) -> str:
    loads = [row for row in report["loads"] if "share" in row]
    rows = [
        [title, _cell(spread(list(over_rounds(loads, "cached", target=name, texts="zipf", share="own half").values())))]
        for name, title in report["targets"].items()
        if name != "ceiling"
    ]
    return table(["service", "hits"], rows)


def _memory(report: dict[str, Any]) -> str:
    def cell(name: str, part: str) -> str:
        return _cell(spread([row[part] for row in report["memory"] if row["target"] == name]))

    rows = [[title, cell(name, "service_mib"), cell(name, "redis_mib")] for name, title in report["targets"].items()]
    return table(["service", "all its processes", "Redis"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _cell(value: Spread | None) -> str:
    if value is None:
        return "–"
    _, low, high = value
    return _number(value) if low == high else f"{_number(value)} ({_short(low)}–{_short(high)})"


def _number(value: Spread | None) -> str:
    return "–" if value is None else _short(value[0])


def _short(value: float) -> str:
    """Three digits that matter, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def sweep_markdown(report: dict[str, Any]) -> str:
    """A table for each quantity that was varied."""
    parts = [f"{_machine(report)}: {report['seconds']:g} s a load, by {report['generator']}."]
    for sweep in report["sweeps"].values():
        names = list(dict.fromkeys(key for row in sweep["rows"] for key in row if key not in ("target", "value")))
        rows = [
            [f"{row['value']:,}", report["targets"][row["target"]], *(row.get(name, "–") for name in names)]
            for row in sweep["rows"]
        ]
        parts.append(f"**{sweep['title']}**\n\n{table([sweep['unit'], 'service', *names], rows)}")
    return "\n\n".join(parts) + "\n"


def capacity_markdown(report: dict[str, Any]) -> str:
    """What a message costs, whether the model foretells the throughput, and the sizes that follow."""
    costs = [[part, cost] for part, cost in report["milliseconds_a_message"].items()]
    replicas = [
        [n, f"{row['predicted_per_second']:,.0f}", f"{row['per_second']:,.0f}", row["p50_ms"]]
        for n, row in report["replicas"].items()
    ]
    parts = list(report["sizing"][0]["replicas"])
    sizes = [
        [
            f"{size['rate']:,}",
            f"{size['hits']:.0%}",
            *(size["replicas"][part] for part in parts),
            f"{size['cores']:,}",
            f"{size['cost_a_month']:,}",
        ]
        for size in report["sizing"]
    ]
    tables = "\n\n".join(
        (
            f"{_machine(report)}: all misses, {report['clients']} clients on the same {report['cores']} cores.",
            table(["part", "processor time a message, ms"], costs),
            table(["classifiers", "messages/s foretold", "messages/s measured", "median, ms"], replicas),
            f"Cost at {report['core_hour']:g} a core and hour (`--core-hour`), {HOURS_A_MONTH} hours a month:",
            table(["messages/s", "known to the cache", *parts, "cores", "cost a month"], sizes),
        )
    )
    return tables + "\n"


def overload_markdown(report: dict[str, Any]) -> str:
    """What each service made of more messages than it can answer."""
    header = [
        "service",
        "offered",
        "of its most",
        "answered in 2 s",
        "answered",
        "429",
        "504",
        "failed",
        "p50, ms",
        "p99, ms",
    ]
    rows = [
        [
            report["targets"][row["target"]],
            f"{row['offered']:,}/s",
            f"{row['share']:.0%}",
            *(f"{row[name]:,.0f}/s" for name in ("in_time", "per_second", "refused", "late")),
            row["failures"],
            *("–" if row[name] is None else f"{row[name]:,.0f}" for name in ("p50_ms", "p99_ms")),
        ]
        for row in report["rows"]
    ]
    return f"{_machine(report)}: all misses, {report['seconds']:g} s a load.\n\n{table(header, rows)}\n"
