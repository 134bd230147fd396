"""Write the figures of stored runs into docs/models.md."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from features.drafts import replacing
from models.bundle import BundleError
from models.data import CORPUS
from models.recipe import Recipe, flag
from models.report_page import COMPARISONS, STEPS, divide, join, title

CLEAR = ("clear", "validation_clear", "holdout_clear")
"""Sets without a context, see `models.testsets`."""


def store(target: Path, name: str, run: Mapping[str, Any], device: str, figures: Mapping[str, Any]) -> None:
    """Add the figures of one device to the stored run in `target`; those of another training run are replaced.

    Raises:
        BundleError: see `stored_run`.
    """
    old = stored_run(target)
    kept = old.get("bench", {}) if old.get("run", {}).get("version") == run["version"] else {}
    content = {"name": name, "run": run, "bench": kept | {device: figures}}
    with replacing(target) as draft:
        draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def stored_run(target: Path) -> dict[str, Any]:
    """The run that `store` put into a file; empty where there is no file.

    Raises:
        BundleError: the file is damaged, or holds something else.
    """
    content = _json(target) if target.exists() else {"run": {}, "bench": {}}
    if not (isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in ("run", "bench"))):
        raise BundleError(f"{target}: holds no run that `bench --save` stored: name another file")
    return content


def write_report(runs: Path, page: Path) -> dict[str, str]:
    """Put tables of the stored runs between the two marks of a page; sections of other runs stay as they are.

    Returns:
        The sections of the page by the names of their runs.

    Raises:
        BundleError: there are no stored runs, one is damaged, or the page has no marks.
    """
    read = {path: _json(path) for path in sorted(runs.glob("*.json"))}
    stored = {path: one for path, one in read.items() if isinstance(one, dict) and "bench" in one}
    if not stored:
        raise BundleError(
            f"{runs}: no stored runs; python -m models bench --run FOLDER --save {runs}/NAME.json makes one"
        )
    try:
        before, sections, after = divide(page.read_text())
    except ValueError as error:
        raise BundleError(f"{page}: {error}") from None
    for path, one in stored.items():
        try:
            if not isinstance(one["name"], str):
                raise TypeError("its name is no string")
            sections[one["name"]] = "".join(f"{line}\n" for line in section(one))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise _damaged(path, error) from None
    with replacing(page) as draft:
        draft.write_text(join(before, sections, after))
    return sections


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> BundleError:
    return BundleError(
        f"{path} is damaged ({type(error).__name__}: {error}): move it away; "
        "python -m models bench --run FOLDER --save FILE makes another"
    )


def section(stored: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one run: how it was made, and its tables."""
    run, training = stored["run"], stored["run"]["training"]
    yield ""
    minutes = training["seconds"] / 60
    yield f"Version `{run['version']}`, {training['rows']} rows, trained in {minutes:.0f} minutes: {_command(training)}"
    yield ""
    sets = list(run["networks"]["teacher"]["sets"])
    heads = ["network", "parameters", "MB", "ms (p50)", "ms (p99)", "messages/s"]
    for name in sets:
        heads += [f"{name.replace('_', ' ')}: accuracy", "ECE", "AUROC"]
    yield from _head(heads)
    quantization = training["recipe"].get("quantization")
    for name in sorted(run["networks"], key=[*STEPS].index):
        timed = stored["bench"].get("cpu", {}).get("networks", {}).get(name)
        yield _row(title(name, quantization), run["networks"][name], timed, sets)
    yield ""
    yield from _notes(stored)
    yield ""
    if "cuda" in stored["bench"]:
        yield from _on_gpu(stored["bench"], quantization)
        yield ""
    yield from _served(run)
    yield ""


def _on_gpu(bench: Mapping[str, Any], quantization: str | None) -> Iterator[str]:
    """The networks on a GPU: the time of each batch size, and how many cores of a CPU answer as many messages."""
    timed, rival = bench["cuda"]["networks"], _fastest_on_a_core(bench)
    sizes = sorted({int(key.removeprefix("batch_")) for one in timed.values() for key in one if key[:6] == "batch_"})
    heads = ["on the GPU", f"ms (p50), batch {sizes[0]}", *(f"batch {size}" for size in sizes[1:])]
    heads += ["ms (p99), batch 1", "copy ms, batch 32", "messages/s"]
    heads += [f"CPU cores with {rival[0]}"] if rival else []
    yield from _head(heads)
    for name in sorted(timed, key=[*STEPS].index):
        figures, rate = timed[name], timed[name]["messages_per_second"]
        cells = [title(name, quantization), *(f"{figures[f'batch_{size}']['p50_ms']:.2f}" for size in sizes)]
        cells += [f"{figures['batch_1']['p99_ms']:.2f}", f"{figures['batch_32']['copy_ms']:.3f}", str(rate)]
        cells += [f"{rate / rival[1]:.1f}"] if rival else []
        yield _line(cells)
    yield ""
    yield "messages/s on the GPU: the best of all batch sizes, without the copy to the card and back."
    if rival:
        yield f"CPU cores: how many of those timed above answer as many messages, each with {rival[0]}."


def _fastest_on_a_core(bench: Mapping[str, Any]) -> tuple[str, int] | None:
    """The fastest step on a CPU and its messages/s; none where messages of another length were timed there."""
    cpu = bench.get("cpu", {"networks": {}})
    rates = {name: one["messages_per_second"] for name, one in cpu["networks"].items() if name not in COMPARISONS}
    if not rates or cpu["tokens"] != bench["cuda"]["tokens"]:
        return None
    return max(rates.items(), key=lambda named: named[1])


def _served(run: Mapping[str, Any]) -> Iterator[str]:
    """The bundle of a run on each set: words, context, both; what is routed, and how often that is right."""
    heads = ["served", "n", "accuracy", "words alone", "context alone", "joint head"]
    heads += ["routed", "right among routed", "ECE", "AUROC"]
    yield from _head(heads)
    joint = run.get("joint_accuracy", {})
    for name, figures in run["served"].items():
        keys = ("accuracy", "accuracy_text_only", "accuracy_context_only")
        if name in CLEAR:
            figures = figures | {"accuracy_context_only": None}  # older runs stored the share of the first label
        cells = [name.replace("_", " "), str(figures["n"]), *(_cell(figures[key]) for key in keys)]
        cells.append(_cell(joint.get(name)))
        cells += [_cell(figures[key]) for key in ("coverage", "selective_accuracy", "ece", "ood_auroc")]
        yield _line(cells)


def _row(called: str, network: Mapping[str, Any], timed: Mapping[str, Any] | None, sets: Sequence[str]) -> str:
    cells = [called, f"{network['parameters'] / 1e6:.1f} M", f"{network['bytes'] / 1e6:.1f}"]
    if timed:
        cells += [f"{timed['batch_1'][key]:.2f}" for key in ("p50_ms", "p99_ms")]
        cells.append(str(timed["messages_per_second"]))
    else:
        cells += ["-"] * 3
    for key in sets:
        figures = network["sets"][key]
        cells += [_cell(figures[figure]) for figure in ("accuracy", "ece", "ood_auroc")]
    return _line(cells)


def _head(heads: Sequence[str]) -> Iterator[str]:
    """The two lines that begin a table."""
    yield _line(heads)
    yield "|" + "---|" * len(heads)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _command(training: Mapping[str, Any]) -> str:
    """The files that the run read, by name, and its options that differ from the recipe's defaults."""
    defaults = asdict(Recipe())
    recipe = {"pooling": "mean", **training["recipe"]}  # what runs did before they could choose
    told = {key: value for key, value in recipe.items() if value != defaults.get(key)}
    options = "".join(f" {flag(key)} {value}" for key, value in told.items())
    data = training.get("data", "FILE")
    files = {} if data == CORPUS.name else {"data": [{"file": data}]}
    files |= {option: named for option, named in training.get("inputs", {}).items() if option != "data"}
    read = "".join(f" {flag(option)} {shlex.join(one['file'] for one in named)}" for option, named in files.items())
    return f"`python -m models train{read}{options}`"


def _notes(stored: Mapping[str, Any]) -> Iterator[str]:
    for device, figures in stored["bench"].items():
        yield f"Timed on {figures['machine']}, {device}, {figures['tokens']} tokens a message."
    networks, timed = stored["run"]["networks"], stored["bench"].get("cpu", {}).get("networks", {})
    rivals = [name for name in ("teacher", "pruned") if "int8" in networks.keys() & timed and name in timed]
    for name in rivals:
        smaller = networks[name]["bytes"] / networks["int8"]["bytes"]
        faster = timed[name]["batch_1"]["p50_ms"] / timed["int8"]["batch_1"]["p50_ms"]
        rival = STEPS[name].replace(",", " network in")
        yield f"int8 is {smaller:.1f} times smaller and {faster:.1f} times faster than the {rival}."
    calibration = stored["run"]["training"].get("calibration")
    if calibration:
        yield (
            f"{calibration['rows']} calibration rows: ECE {calibration['ece_before']} before, "
            f"{calibration['ece_after']} after."
        )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
