"""The options of the commands of `python -m models`, and how their help shows them."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from models.data import CORPUS
from models.gates import TOLERANCE
from models.recipe import Recipe, flag
from models.registry import DEFAULT

RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs"
ROWS = "labelled chats: CSV, JSONL, CLINC150's JSON or a folder of JSONL"
JUDGED = f"{ROWS} (of a JSON its test lists, or val, or train, whichever it has first)"
OUT_OF_SCOPE_HELP = "messages about no product, whatever their labels"
REFERENCE = "path, version or name"


def train(command: argparse.ArgumentParser) -> None:
    """What to train on, where to, and every field of the recipe."""
    _file(command, "--data", ROWS, default=CORPUS)
    more = "more labelled chats, such as those that features training-set writes"
    _file(command, "--feedback", more, nargs="+", default=[])
    _file(
        command,
        "--validation-data",
        "labelled chats (of a JSON val, else train) to choose epochs and calibrate by, in place of --validation",
    )
    _file(command, "--out-of-scope", f"more rows: {OUT_OF_SCOPE_HELP}")
    _file(command, "--unlabelled", "more texts for the teachers to label: rows with a `text`")
    _folder(command, "--out", "gets the bundle", default=DEFAULT)
    _folder(command, "--work", "keeps finished stages, to go on after a stop; without it, .work in that of --out")
    for field in fields(Recipe):
        kind, text = type(field.default), field.metadata["help"]
        letter = {int: "N", float: "X"}.get(kind)
        command.add_argument(flag(field.name), type=kind, metavar=letter, default=field.default, help=text)


def evaluate(command: argparse.ArgumentParser) -> None:
    """Which bundle, on what."""
    command.add_argument("--bundle", default="production", help=REFERENCE)
    _file(command, "--data", f"{JUDGED}; without it, the test sets of the manifest")
    _file(command, "--out-of-scope", f"{OUT_OF_SCOPE_HELP}, for ood_auroc; needs --data")
    _folder(command, "--plots", "gets confusion.png and reliability.png, without --data in a folder for each test set")
    registry(command)


def bench(command: argparse.ArgumentParser) -> None:
    """Which networks, and how to time them."""
    networks = command.add_mutually_exclusive_group()
    several = f"{REFERENCE}; may be given several times; without it and --run, production"
    networks.add_argument("--bundle", action="append", help=several)
    run = "folder of a training run, of which all networks are timed: the `run` of train's last line"
    networks.add_argument("--run", dest="run_folder", type=Path, metavar="DIR", help=run)
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="one core, or the first GPU")
    command.add_argument("--tokens", type=int, metavar="N", default=16, help="length of each message")
    command.add_argument("--rounds", type=int, metavar="N", default=200, help="runs of each network at each batch size")
    _file(command, "--save", "JSON that `report` reads; needs --run")
    registry(command)


def report(command: argparse.ArgumentParser) -> None:
    """From where, to where."""
    _folder(command, "--runs", "what `bench --save` wrote", default=RUNS)
    page = "gets the tables between its two marks, and models.png beside it"
    _file(command, "--page", page, default=RUNS.parent / "models.md")


def promote(command: argparse.ArgumentParser) -> None:
    """Which bundle, under which name, and what it must not be worse in."""
    command.add_argument("bundle", help=REFERENCE)
    command.add_argument("--name", default="production", help="what points at it afterwards")
    _file(
        command, "--data", f"{JUDGED}, to measure both bundles on now; without it, the figures in the manifests count"
    )
    _file(command, "--out-of-scope", f"{OUT_OF_SCOPE_HELP}, to measure on; needs --data")
    command.add_argument("--tolerance", type=float, metavar="X", default=TOLERANCE, help="how much worse it may be")
    command.add_argument("--force", action="store_true", help="promote it though it is worse or not comparable")
    registry(command)


def rollback(command: argparse.ArgumentParser) -> None:
    """Which name."""
    command.add_argument("--name", default="production", help="what points at it")
    registry(command)


def registry(command: argparse.ArgumentParser) -> None:
    """Where the bundles are."""
    told = "folder that holds the bundles, or an URL such as s3://bucket/bundles"
    command.add_argument("--registry", metavar="DIR", default=str(DEFAULT), help=told)


def _file(command: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
    command.add_argument(name, type=Path, metavar="FILE", help=text, **more)


def _folder(command: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
    command.add_argument(name, type=_local, metavar="DIR", help=f"folder that {text}", **more)


def _local(text: str) -> Path:
    """A folder of this machine; an URL would become one silently."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is an URL, expected a folder; promote --registry takes bundles there")
    return Path(text)
