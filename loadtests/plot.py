"""PNG pictures of a comparison and of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.figures import over_rounds, spread

_TEXTS = {"unique": "all misses (unique texts)", "zipf": "Zipf texts (20,000 distinct)"}


def comparison_png(report: dict[str, Any], path: Path) -> None:
    """Throughput, and latency (median as a line, p99 dotted), against the number of clients."""
    figure = _figure(12, 8.5)
    kinds = list(dict.fromkeys(row["texts"] for row in report["loads"]))
    panels = figure.subplots(2, len(kinds), squeeze=False, sharex=True, sharey="row")
    loads = [row for row in report["loads"] if "clients" in row]
    clients = sorted({row["clients"] for row in loads})
    for column, texts in enumerate(kinds):
        above, below = panels[0][column], panels[1][column]
        for i, (name, title) in enumerate(report["targets"].items()):
            case = {"target": name, "texts": texts}
            _line(above, loads, "per_second", case, clients, f"C{i}", "-", title if column == 0 else None)
            _line(below, loads, "p50_ms", case, clients, f"C{i}", "-", None)
            _line(below, loads, "p99_ms", case, clients, f"C{i}", ":", None)
        above.set_title(_TEXTS[texts])
        below.set(yscale="log", xlabel="clients, closed loop")
        below.set_xscale("log", base=2)
        below.set_xticks(clients, [str(n) for n in clients])
    panels[0][0].set_ylabel("requests per second")
    panels[0][0].set_ylim(bottom=0)
    panels[1][0].set_ylabel("latency, ms: median, p99 dotted")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, format="png")


def sweep_png(report: dict[str, Any], path: Path) -> None:
    """A panel for each quantity that was varied: throughput on the left axis, median latency on the right one."""
    figure = _figure(12, 8.5)
    panels = figure.subplots(2, 2)
    for axes, (quantity, part) in zip(panels.flat, report["sweeps"].items(), strict=True):
        second = axes.twinx()
        for i, (name, title) in enumerate(report["targets"].items()):
            rows = [row for row in part["rows"] if row["target"] == name]
            values = [row["value"] for row in rows]
            if rows:
                label = title if quantity == next(iter(report["sweeps"])) else None
                axes.plot(values, [row["per_second"] for row in rows], f"C{i}o-", label=label)
                second.plot(values, [row["p50_ms"] for row in rows], f"C{i}x:")
        axes.set(title=part["title"], xlabel=part["unit"], ylabel="requests per second", ylim=(0, None))
        axes.set_xscale("log", base=part["base"])
        if part["base"] == 2:
            ticks = sorted({row["value"] for row in part["rows"]})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
        second.set(ylabel="median latency, ms (dotted)", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, format="png")


def _line(
    axes: Axes,
    loads: Sequence[dict[str, Any]],
    figure: str,
    case: dict[str, Any],
    clients: Sequence[int],
    colour: str,
    style: str,
    label: str | None,
) -> None:
    """Medians over the rounds, with bars from the smallest to the largest."""
    spreads = {n: spread(list(over_rounds(loads, figure, clients=n, **case).values())) for n in clients}
    points = [(n, *value) for n, value in spreads.items() if value is not None]
    if points:
        x, middle, low, high = zip(*points, strict=True)
        bars = ([m - s for m, s in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)])
        axes.errorbar(x, middle, yerr=bars, color=colour, linestyle=style, marker="o", markersize=3, label=label)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, its sides in inches; drawn by Agg, whatever screen there is."""
    figure = Figure((width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
