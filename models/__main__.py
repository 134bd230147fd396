"""Command line: `python -m models {train,evaluate,promote,rollback,list}`."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from models.bundle import Bundle, BundleError
from models.data import CORPUS, OUT_OF_SCOPE, DataError, digest, load
from models.registry import DEFAULT, Registry


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors of the user's are one line on standard error and exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (BundleError, DataError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(arguments: argparse.Namespace) -> None:
    try:
        from models.train import Recipe, train
    except ModuleNotFoundError as error:
        raise BundleError(f"training needs the extra [train]: {error}") from None
    examples = load(arguments.data)
    if arguments.out_of_scope:
        examples += load(arguments.out_of_scope, OUT_OF_SCOPE)
    recipe = Recipe(**{f.name: getattr(arguments, f.name) for f in fields(Recipe)})
    bundle = train(examples, recipe, arguments.out, arguments.work, arguments.data)
    print(json.dumps({"version": bundle.version, "path": str(bundle.path), **bundle.manifest.metrics}))


def _evaluate(arguments: argparse.Namespace) -> None:
    from models.evaluate import evaluate

    bundle = Registry(arguments.registry).load(arguments.bundle)
    if arguments.data is None:
        _reproduce(bundle)
        return
    examples = load(arguments.data)
    if arguments.out_of_scope:
        examples += load(arguments.out_of_scope, OUT_OF_SCOPE)
    report = evaluate(bundle, examples)
    for product, f1 in report.get("f1", {}).items():
        print(f"{product:>24}  f1 {f1:.4f}")
    print(json.dumps({"version": bundle.version, **report}))


def _reproduce(bundle: Bundle) -> None:
    """Measure a bundle of the own corpus on its test sets again, as its manifest tells."""
    from models.evaluate import evaluate
    from models.testsets import test_sets

    examples = load(CORPUS)
    if bundle.manifest.training.get("data_sha256") != digest(examples):
        raise DataError(f"bundle {bundle.version} was trained on other data than {CORPUS}: name a file with --data")
    sets = test_sets(examples, CORPUS)
    figures = {name: evaluate(bundle, rows) for name, rows in tqdm(sets.items(), unit="set", leave=False)}
    for name, report in figures.items():
        told = bundle.manifest.metrics.get(name)
        same = "as in the manifest" if report == told else f"the manifest says {(told or {}).get('accuracy')}"
        print(f"{name:>20}  n {report['n']:>4}  accuracy {report['accuracy']:.4f}  {same}")
    print(json.dumps({"version": bundle.version, **figures}))


def _promote(arguments: argparse.Namespace) -> None:
    print(arguments.name, Registry(arguments.registry).promote(arguments.bundle, arguments.name))


def _rollback(arguments: argparse.Namespace) -> None:
    print(arguments.name, Registry(arguments.registry).rollback(arguments.name))


def _list(arguments: argparse.Namespace) -> None:
    registry = Registry(arguments.registry)
    names = registry.names()
    for manifest in registry.versions():
        marks = ",".join(name for name, version in names.items() if version == manifest.version)
        figures = " ".join(f"{k} {v.get('accuracy')}" for k, v in manifest.metrics.items())
        print(f"{manifest.version}  {marks or '-':<12} {len(manifest.labels)} labels  {figures}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="labelled chats and an encoder in, a bundle out")
    train.set_defaults(run=_train)
    train.add_argument("--data", type=Path, default=CORPUS, help="CSV, JSONL or a folder of JSONL (own corpus)")
    train.add_argument("--out-of-scope", type=Path, help="more rows, labelled out of scope")
    train.add_argument("--out", type=Path, default=DEFAULT, help="folder that gets the bundle")
    train.add_argument("--work", type=Path, help="folder for finished stages, to go on after a stop")
    train.add_argument("--encoder", default="default", help="folder or hub id of a pretrained encoder")
    train.add_argument("--teacher-epochs", type=int, default=8)
    train.add_argument("--student-epochs", type=int, default=5)
    train.add_argument("--student-layers", type=int, default=3)
    train.add_argument("--vocabulary", type=int, default=13000, help="word pieces to keep")
    train.add_argument("--max-tokens", type=int, default=96)
    train.add_argument("--precision", type=float, default=0.95, help="wanted precision of routed answers")
    train.add_argument("--seed", type=int, default=0)

    evaluate = commands.add_parser("evaluate", help="figures of a bundle on labelled chats; last line JSON")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("--bundle", default="production", help="path, version or name")
    evaluate.add_argument("--data", type=Path, help="default: the test sets of the manifest")
    evaluate.add_argument("--out-of-scope", type=Path, help="messages about no product, for ood_auroc")

    promote = commands.add_parser("promote", help="point a name at a bundle")
    promote.set_defaults(run=_promote)
    promote.add_argument("bundle", help="path, version or name")
    promote.add_argument("--name", default="production")

    rollback = commands.add_parser("rollback", help="point a name back at the version before")
    rollback.set_defaults(run=_rollback)
    rollback.add_argument("--name", default="production")

    listing = commands.add_parser("list", help="bundles and names of the registry")
    listing.set_defaults(run=_list)
    for command in (evaluate, promote, rollback, listing):
        command.add_argument("--registry", type=Path, default=DEFAULT, help="folder of bundles")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
