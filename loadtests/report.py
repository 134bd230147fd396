"""A saved comparison as Markdown tables, and their place in docs/performance.md."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadtests.figures import Spread, goals, over_rounds, spread

BEGIN, END = "<!-- scripts/compare: begin -->", "<!-- scripts/compare: end -->"
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


def insert(page: str, tables: str) -> str:
    """A page with the tables between its two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def load(file: Path) -> dict[str, Any]:
    """A saved comparison."""
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def _conditions(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    checked = report["checked"]
    return (
        f"{report['machine']}; {versions}; commit {report['commit']}; {report['at']}. `{report['command']}`: "
        f"{report['rounds']} rounds, {report['seconds']:g} s a load after {report['warm_up_s']:g} s of warm-up; "
        f"medians over the rounds, smallest and largest in brackets. Load by {report['generator']}, whose own limit "
        f"here is {report['generator_limit']:,.0f} requests per second. Answers checked: {checked['checked']:,}; "
        f"mismatches: {checked['mismatches']}; degraded: {checked['degraded']}; refused: {checked['refused']}."
    )


def _goals(report: dict[str, Any]) -> str:
    rows = [
        [goal["case"], _cell(goal["value"]), goal["limit"], {True: "yes", False: "no", None: "–"}[goal["met"]]]
        for goal in goals(report["loads"], report["memory"])
    ]
    return table(["case", "measured", "target", "met"], rows)


def _closed(report: dict[str, Any], figure: str) -> str:
    loads = [row for row in report["loads"] if "clients" in row]
    rows = []
    for texts, clients in dict.fromkeys((row["texts"], row["clients"]) for row in loads):
        cells = [
            _cell(spread(list(over_rounds(loads, figure, target=name, texts=texts, clients=clients).values())))
            for name in report["targets"]
        ]
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
            cells.append(f"{_number(p50)} / {_number(p99)} at {_number(rate)}/s" if rate else "–")
        rows.append([_TEXTS[texts], share, *cells])
    return table(["texts", "rate", *report["targets"].values()], rows)


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
    parts = []
    for sweep in report["sweeps"].values():
        names = list(dict.fromkeys(key for row in sweep["rows"] for key in row if key not in ("target", "value")))
        rows = [
            [row["value"], report["targets"][row["target"]], *(row.get(name, "–") for name in names)]
            for row in sweep["rows"]
        ]
        parts.append(f"**{sweep['title']}**\n\n{table([sweep['unit'], 'service', *names], rows)}")
    return "\n\n".join(parts) + "\n"
