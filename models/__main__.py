"""Command line: `python -m models {train,evaluate,bench,report,promote,rollback,list}`."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from models.bundle import Bundle, BundleError, read_manifest
from models.classifier import is_int8
from models.data import CORPUS, OUT_OF_SCOPE, DataError, Example, digest, load, load_validation, split
from models.gates import TOLERANCE
from models.recipe import Recipe
from models.registry import DEFAULT, Registry
from models.report import store, write_report
from models.report_page import points

RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs"


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors of the user's are one line on standard error and exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (BundleError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(arguments: argparse.Namespace) -> None:
    try:
        from models.train import train
    except ModuleNotFoundError as error:
        raise BundleError(f"training needs the extra [train]: {error}") from None
    examples = _rows(arguments)
    held = load(arguments.validation_data) if arguments.validation_data else load_validation(arguments.data)
    unlabelled = load(arguments.unlabelled, OUT_OF_SCOPE) if arguments.unlabelled else []
    recipe = Recipe(**{f.name: getattr(arguments, f.name) for f in fields(Recipe)})
    bundle = train(
        examples, recipe, arguments.out, arguments.work, arguments.data, held, [row.text for row in unlabelled]
    )
    print(json.dumps({"version": bundle.version, "path": str(bundle.path), **bundle.manifest.metrics}))


def _rows(arguments: argparse.Namespace) -> list[Example]:
    """The labelled rows of `--data`, `--feedback` and `--out-of-scope`."""
    examples = load(arguments.data)
    for path in getattr(arguments, "feedback", ()):
        examples += load(path)
    if arguments.out_of_scope:
        examples += load(arguments.out_of_scope, OUT_OF_SCOPE)
    return examples


def _evaluate(arguments: argparse.Namespace) -> None:
    from models.judge import judge

    bundle = Registry(arguments.registry).load(arguments.bundle)
    if arguments.data is None:
        _reproduce(bundle)
        return
    report, text = judge(bundle, _rows(arguments), bundle.classifier(), arguments.plots)
    print(text, end="\n\n")
    print(json.dumps({"version": bundle.version, **report}))


def _reproduce(bundle: Bundle) -> None:
    """Measure a bundle of the own corpus on its test sets again, as its manifest tells."""
    from models.evaluate import evaluate
    from models.testsets import test_sets

    examples = load(CORPUS)
    if bundle.manifest.training.get("data_sha256") != digest(examples):
        raise DataError(f"bundle {bundle.version} was trained on other data than {CORPUS}: name a file with --data")
    sets = test_sets(split(examples), CORPUS)
    figures = {name: evaluate(bundle, rows) for name, rows in tqdm(sets.items(), unit="set", leave=False)}
    for name, report in figures.items():
        told = bundle.manifest.metrics.get(name)
        same = "as in the manifest" if report == told else f"the manifest says {(told or {}).get('accuracy')}"
        print(f"{name:>20}  n {report['n']:>4}  accuracy {report['accuracy']:.4f}  {same}")
    print(json.dumps({"version": bundle.version, **figures}))


def _bench(arguments: argparse.Namespace) -> None:
    from models.bench import bench, candidates, machine, run_folder

    if arguments.save and not arguments.run_folder:
        raise BundleError("--save needs --run, the folder of a training run")
    if arguments.run_folder:
        run, paths = run_folder(arguments.run_folder)
    else:
        bundles = [Registry(arguments.registry).load(reference) for reference in arguments.bundle or ["production"]]
        run, paths = {}, {bundle.version: bundle.path / "text.onnx" for bundle in bundles}
    if arguments.device == "cuda" and arguments.run_folder:
        paths = {name: path for name, path in paths.items() if not is_int8(path)}
    try:
        rivals = candidates(paths, arguments.device)
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


def _report(arguments: argparse.Namespace) -> None:
    from models.plots import accuracy_latency_png

    sections = write_report(arguments.runs, arguments.page)
    accuracy_latency_png(points(sections), arguments.page.parent / "models.png")
    print(f"{arguments.page}: {', '.join(sorted(sections))}")


def _promote(arguments: argparse.Namespace) -> None:
    version = Registry(arguments.registry).promote(
        arguments.bundle, arguments.name, tolerance=arguments.tolerance, force=arguments.force,
        examples=_rows(arguments) if arguments.data else None,
    )  # fmt: skip
    print(arguments.name, version)


def _rollback(arguments: argparse.Namespace) -> None:
    print(arguments.name, Registry(arguments.registry).rollback(arguments.name))


def _list(arguments: argparse.Namespace) -> None:
    registry = Registry(arguments.registry)
    names = registry.names()
    for folder in registry.folders():
        marks = ",".join(name for name, version in names.items() if version == folder.name)
        try:
            manifest = read_manifest(folder)
        except BundleError as error:
            print(f"{folder.name}  {marks or '-':<12} unreadable: {error}")
            continue
        figures = " ".join(f"{k} {v.get('accuracy')}" for k, v in manifest.metrics.items())
        print(f"{folder.name}  {marks or '-':<12} {len(manifest.labels)} labels  {figures}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="labelled chats and an encoder in, a bundle out")
    train.set_defaults(run=_train)
    train.add_argument("--data", type=Path, default=CORPUS, help="CSV, JSONL, CLINC150's JSON or a folder of JSONL")
    train.add_argument(
        "--feedback", type=Path, nargs="+", default=[], help="further rows, such as those of features training-set"
    )
    train.add_argument("--validation-data", type=Path, help="rows to choose epochs and calibrate by")
    train.add_argument("--out-of-scope", type=Path, help="more rows, labelled out of scope")
    train.add_argument("--unlabelled", type=Path, help="more texts for the teachers to label: rows with a `text`")
    train.add_argument("--out", type=Path, default=DEFAULT, help="folder that gets the bundle")
    train.add_argument("--work", type=Path, help="folder for finished stages, to go on after a stop (OUT/.work)")
    for field in fields(Recipe):
        default, text = field.default, field.metadata["help"]
        train.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default, help=text)

    evaluate = commands.add_parser("evaluate", help="figures of a bundle on labelled chats; last line JSON")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("--bundle", default="production", help="path, version or name")
    evaluate.add_argument("--data", type=Path, help="default: the test sets of the manifest")
    evaluate.add_argument("--out-of-scope", type=Path, help="messages about no product, for ood_auroc")
    evaluate.add_argument("--plots", type=Path, help="folder for confusion.png and reliability.png (extra [train])")

    bench = commands.add_parser("bench", help="latency and messages per second on one core or a GPU; last line JSON")
    bench.set_defaults(run=_bench)
    bench.add_argument("--bundle", action="append", help="path, version or name; several may be given (production)")
    bench.add_argument("--run", dest="run_folder", type=Path, help="folder of a training run: all of its networks")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    bench.add_argument("--tokens", type=int, default=16, help="length of each message")
    bench.add_argument("--rounds", type=int, default=200, help="runs of each network at each batch size")
    bench.add_argument("--save", type=Path, help="JSON file that `report` reads; needs --run")

    report = commands.add_parser("report", help="write the figures of stored runs into docs/models.md")
    report.set_defaults(run=_report)
    report.add_argument("--runs", type=Path, default=RUNS, help="folder of what `bench --save` wrote")
    report.add_argument("--page", type=Path, default=RUNS.parent / "models.md")

    promote = commands.add_parser("promote", help="point a name at a bundle")
    promote.set_defaults(run=_promote)
    promote.add_argument("bundle", help="path, version or name")
    promote.add_argument("--name", default="production")
    promote.add_argument("--data", type=Path, help="measure both bundles on these rows now")
    promote.add_argument("--out-of-scope", type=Path, help="messages about no product, for the comparison")
    promote.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much worse it may be (%(default)s)")
    promote.add_argument("--force", action="store_true", help="promote it though it is worse or not comparable")

    rollback = commands.add_parser("rollback", help="point a name back at the version before")
    rollback.set_defaults(run=_rollback)
    rollback.add_argument("--name", default="production")

    listing = commands.add_parser("list", help="bundles and names of the registry")
    listing.set_defaults(run=_list)
    for command in (evaluate, bench, promote, rollback, listing):
        command.add_argument("--registry", type=Path, default=DEFAULT, help="folder of bundles")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
