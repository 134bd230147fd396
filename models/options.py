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
REFERENCE = "bundle: path, version or name"


def train(command: argparse.ArgumentParser) -> None:
    """What to train on, where to, and every field of the recipe."""
    _file(command, "--data", ROWS, default=CORPUS)
    more = "more labelled chats, such as `features training-set` writes"
    _file(command, "--feedback", more, nargs="+", default=[])
    _file(
        command,
        "--validation-data",
        "labelled chats for early stopping and calibration, instead of --validation (of a JSON its val, else train)",
    )
    _file(command, "--out-of-scope", f"additional rows: {OUT_OF_SCOPE_HELP}")
    _file(command, "--unlabelled", "additional texts for the teachers to label: rows with a `text`")
    _folder(command, "--out", "the bundle is written to", default=DEFAULT)
    _folder(command, "--work", "keeps finished stages, so that a stopped run resumes (default: OUT/.work)")
    for field in fields(Recipe):
        kind, text = type(field.default), field.metadata["help"]
        letter = {int: "N", float: "X"}.get(kind)
        command.add_argument(flag(field.name), type=kind, metavar=letter, default=field.default, help=text)


def evaluate(command: argparse.ArgumentParser) -> None:
    """Which bundle, on what."""
    command.add_argument("--bundle", default="production", help=REFERENCE)
    _file(command, "--data", f"{JUDGED} (default: the test sets of the manifest)")
    _file(command, "--out-of-scope", f"{OUT_OF_SCOPE_HELP}, for ood_auroc; needs --data")
    _folder(
        command,
        "--plots",
        "confusion.png and reliability.png are written to, without --data in one folder for each test set",
    )
    registry(command)


def bench(command: argparse.ArgumentParser) -> None:
    """Which networks, and how to time them."""
    networks = command.add_mutually_exclusive_group()
    several = f"{REFERENCE}; may be repeated (default, without --run: production)"
    networks.add_argument("--bundle", action="append", help=several)
    run = "folder of a training run whose networks are all timed: `run` in the last line of `train`"
    networks.add_argument("--run", dest="run_folder", type=Path, metavar="DIR", help=run)
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="one core, or the first GPU")
    command.add_argument("--tokens", type=int, metavar="N", default=16, help="tokens in each message")
    command.add_argument(
        "--rounds", type=int, metavar="N", default=200, help="timed runs for each network and batch size"
    )
    _file(command, "--save", "also write the figures as JSON, for `report`; needs --run")
    registry(command)


def report(command: argparse.ArgumentParser) -> None:
    """From where, to where."""
    _folder(command, "--runs", "holds the files of `bench --save`", default=RUNS)
    page = "Markdown page to write the tables to, between its two marks; models.png goes beside it"
    _file(command, "--page", page, default=RUNS.parent / "models.md")


def promote(command: argparse.ArgumentParser) -> None:
    """Which bundle, under which name, and what it must not be worse in."""
    command.add_argument("bundle", help=REFERENCE)
    command.add_argument("--name", default="production", help="name to point at the bundle")
    _file(
        command,
        "--data",
        f"{JUDGED}, on which both bundles are measured (default: compare the figures in their manifests)",
    )
    _file(command, "--out-of-scope", f"{OUT_OF_SCOPE_HELP}, measured, too; needs --data")
    command.add_argument(
        "--tolerance", type=float, metavar="X", default=TOLERANCE, help="how much worse the bundle may be"
    )
    command.add_argument(
        "--force", action="store_true", help="promote the bundle even if it is worse or not comparable"
    )
    registry(command)


def rollback(command: argparse.ArgumentParser) -> None:
    """Which name."""
    command.add_argument("--name", default="production", help="name to point back")
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
