"""Command line: `python -m models {train,evaluate,bench,report,promote,rollback,list}`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from features.command_line import Command, add_command, failed
from models import options
from models.bundle import BundleError
from models.data import OUT_OF_SCOPE, TO_JUDGE, DataError, Example, load
from models.gates import TOLERANCE
from models.inputs import read_inputs
from models.recipe import OptionError, Range, Recipe, require
from models.registry import DEFAULT, Registry
from models.report import store, stored_run, write_report
from models.report_page import points

Run = Callable[[argparse.Namespace], None]
Options = Callable[[argparse.ArgumentParser], None]


def main(argv: list[str] | None = None) -> int:
    """Run one command; what stops it is one line on standard error and exit code 2, or 130 for an interrupt."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (BundleError, DataError, OptionError, OSError) as error:
        return failed(str(error))
    except MemoryError:
        return failed("there is not enough memory")
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    return 0


def _train(arguments: argparse.Namespace) -> None:
    try:
        from models.train import run
    except ModuleNotFoundError as error:
        raise BundleError(f"training needs the extra [train]: {error}") from None
    recipe = Recipe(**{f.name: getattr(arguments, f.name) for f in fields(Recipe)})
    names = ("data", "feedback", "out_of_scope", "validation_data", "unlabelled")
    inputs = read_inputs(**{name: getattr(arguments, name) for name in names})
    done = run(inputs, recipe, arguments.out, arguments.work)
    told = {"version": done.bundle.version, "path": str(done.bundle.path), "run": str(done.folder)}
    if warning := done.bundle.manifest.training["calibration"].get("warning"):
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(told | dict(done.bundle.manifest.metrics)))


def _rows(arguments: argparse.Namespace) -> list[Example]:
    """The labelled rows of `--data` and `--out-of-scope`."""
    examples = load(arguments.data, lists=TO_JUDGE)
    if arguments.out_of_scope:
        examples += load(arguments.out_of_scope, OUT_OF_SCOPE, TO_JUDGE)
    return examples


def _require_data(arguments: argparse.Namespace) -> None:
    if arguments.out_of_scope and not arguments.data:
        raise OptionError("--out-of-scope needs --data, rows about products to measure on with it")


def _evaluate(arguments: argparse.Namespace) -> None:
    from models.judge import judge, reproduce
    from models.plots import require_matplotlib

    _require_data(arguments)
    bundle = Registry.at(arguments.registry).load(arguments.bundle)
    if arguments.plots is not None:
        require_matplotlib()
        arguments.plots.mkdir(parents=True, exist_ok=True)
    if arguments.data is None:
        report, text = reproduce(bundle, arguments.plots)
    else:
        report, text = judge(bundle, _rows(arguments), bundle.classifier(), arguments.plots)
    print(text, end="\n\n")
    print(json.dumps({"version": bundle.version, **report}))


def _bench(arguments: argparse.Namespace) -> None:
    from models.bench import bench, machine, open_networks, runs_on

    if arguments.save and not arguments.run_folder:
        raise OptionError("--save needs --run, the folder of a training run")
    if arguments.run_folder and arguments.registry != str(DEFAULT):
        raise OptionError("--registry has no effect with --run, whose networks are in that folder: leave it out")
    if arguments.save:
        stored_run(arguments.save)  # which refuses, before anything is timed, what could not be added to
    run, paths, limit = _networks(arguments)
    require("tokens", arguments.tokens, Range(1, limit))
    require("rounds", arguments.rounds, Range(1))
    if arguments.run_folder:
        paths = runs_on(arguments.device, paths)
    try:
        rivals = open_networks(paths, arguments.device)
    except RuntimeError as error:
        raise BundleError(str(error)) from None
    timed = bench(rivals, arguments.device, tokens=arguments.tokens, rounds=arguments.rounds)
    for name, figures in timed.items():
        latencies = "  ".join(f"{key} {figures[key]['p50_ms']:.3f} ms" for key in figures if key.startswith("batch_"))
        print(f"{name:>14}  {latencies}  {figures['messages_per_second']} messages/s")
    result = {"machine": machine(arguments.device), "tokens": arguments.tokens, "networks": timed}
    if arguments.save:
        store(arguments.save, arguments.save.stem, run, arguments.device, result)
    print(json.dumps({"device": arguments.device, **result}))


def _networks(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], dict[str, Path], int]:
    """The record of the run, if one is to be timed, the files of the networks, and their longest message in tokens."""
    from models.bench import read_run

    if arguments.run_folder:
        run, paths = read_run(arguments.run_folder)
        return run, paths, run["max_tokens"]
    bundles = [Registry.at(arguments.registry).load(reference) for reference in arguments.bundle or ["production"]]
    paths = {bundle.version: bundle.path / "text.onnx" for bundle in bundles}
    return {}, paths, min(bundle.manifest.preprocessing.max_tokens for bundle in bundles)


def _report(arguments: argparse.Namespace) -> None:
    from models.plots import accuracy_latency_png, require_matplotlib

    require_matplotlib()
    sections = write_report(arguments.runs, arguments.page)
    accuracy_latency_png(points(sections), arguments.page.parent / "models.png")
    print(f"{arguments.page}: {', '.join(sorted(sections))}")


def _promote(arguments: argparse.Namespace) -> None:
    _require_data(arguments)
    require("tolerance", arguments.tolerance, Range(0, 1))
    if arguments.force and arguments.data:
        raise OptionError("--data has no effect with --force, which measures nothing: leave one of them out")
    if arguments.force and arguments.tolerance != TOLERANCE:
        raise OptionError("--tolerance has no effect with --force, which compares nothing: leave one of them out")
    version = Registry.at(arguments.registry).promote(
        arguments.bundle, arguments.name, tolerance=arguments.tolerance, force=arguments.force,
        examples=_rows(arguments) if arguments.data else None,
    )  # fmt: skip
    _tell_moved(arguments.name, version)


def _rollback(arguments: argparse.Namespace) -> None:
    _tell_moved(arguments.name, Registry.at(arguments.registry).rollback(arguments.name))


def _tell_moved(name: str, version: str) -> None:
    print(name, version)
    notice = f"a running service goes on as it started: restart scripts/serve, or deploy `model: {version}`"
    print(f"notice: {notice}", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> None:
    registry = Registry.at(arguments.registry)
    if not registry.is_there():
        raise BundleError(f"no registry in {registry.where}: no such folder")
    pointers, versions = registry.pointers(), registry.versions()
    names = {name: str(at.version) for name, at in pointers.items() if not isinstance(at, BundleError)}
    if not versions:
        print(f"{registry.where}: no bundles", file=sys.stderr)
    for version in versions:
        marks = ",".join(name for name, pointed in names.items() if pointed == version)
        try:
            manifest = registry.manifest(version)
        except (BundleError, OSError) as error:
            print(f"{version}  {marks or '-':<12} unreadable: {error}")
            continue
        figures = " ".join(f"{k} {v.get('accuracy')}" for k, v in manifest.metrics.items())
        print(f"{version}  {marks or '-':<12} {len(manifest.labels)} labels  {figures}")
    for name, version in names.items():
        if version not in versions:
            print(f"{version}  {name:<12} gone: no such bundle; promote another, or roll back")
    for name, pointer in pointers.items():
        if isinstance(pointer, BundleError):
            print(f"{'-':<12}  {name:<12} unreadable: {pointer}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description="From labelled chats to the served model.")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=Command)

    def add_parser(name: str, run: Run, add_options: Options, text: str) -> None:
        command = add_command(commands, name, text)
        command.set_defaults(run=run)
        add_options(command)

    add_parser(
        "train", _train, options.train, "train a bundle from labelled chats and a pretrained encoder; last line JSON"
    )
    add_parser("evaluate", _evaluate, options.evaluate, "measure a bundle on labelled chats; last line JSON")
    add_parser("bench", _bench, options.bench, "measure latency and throughput of networks; last line JSON")
    add_parser("report", _report, options.report, "write the tables of docs/models.md from stored runs")
    add_parser(
        "promote", _promote, options.promote, "point a name at a bundle, unless it is worse than the one it points at"
    )
    add_parser("rollback", _rollback, options.rollback, "point a name at its previous version again")
    add_parser("list", _list, options.registry, "list the bundles and names of the registry")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
