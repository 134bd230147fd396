"""The options of `scripts/compare`: what each mode takes, within which range, and what it takes by default."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.targets import all_targets, variants

MODES = {
    "compare": ("quick", "rounds", "seconds", "out", "generator", "classifiers", "only"),
    "sweep": ("quick", "seconds", "out", "generator", "classifiers"),
    "ramp": ("seconds", "out"),
    "capacity": ("seconds", "out", "core_hour"),
    "overload": ("quick", "seconds", "out", "generator", "classifiers", "only"),
    "report": ("out",),
}
"""The options that have an effect in each mode."""
NOT_QUICK = ("rounds", "generator")
"""Those without an effect in a quick run: it has one round, by the built-in generator."""
SECONDS = {"compare": 5.0, "sweep": 5.0, "ramp": 60.0, "capacity": 15.0, "overload": 10.0}
QUICK_SECONDS = 1.0
DEFAULTS = {
    "quick": False,
    "rounds": 3,
    "out": None,
    "generator": "auto",
    "classifiers": 2,
    "only": None,
    "core_hour": 0.04,
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options and `mode`; ends with exit code 2 for those out of range and those without an effect."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    mode: str = given.pop("mode", "compare")
    for useless, where in (
        (given.keys() - set(MODES[mode]), "in a comparison" if mode == "compare" else f"with --{mode}"),
        (given.keys() & set(NOT_QUICK) if "quick" in given else set(), "with --quick"),
    ):
        if useless:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(useless))
            parser.error(f"without effect {where}: {names}")
    seconds = QUICK_SECONDS if "quick" in given else SECONDS.get(mode)
    return argparse.Namespace(**{"mode": mode, "seconds": seconds} | DEFAULTS | given)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    names = [target.name for target in [*all_targets(), *variants()]]
    lengths = ", ".join(f"{SECONDS[mode]:g} with --{mode}" for mode in ("ramp", "capacity", "overload"))
    parser = argparse.ArgumentParser(
        prog="scripts/compare",
        description="Compare the graph with a service written by hand, or run one of the modes.",
        argument_default=argparse.SUPPRESS,
    )
    mode = parser.add_argument_group("modes").add_mutually_exclusive_group()
    for name, does in (
        ("sweep", "measure cost over text length, clients, users and cache size"),
        ("ramp", "show that classifiers scale up under load and down after it"),
        ("capacity", "measure what a message costs each part, and size deployments by that"),
        ("overload", "offer more messages than can be answered, and count answers in time"),
        ("report", "write docs/performance.md's tables from the saved runs"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=does)
    add = parser.add_argument
    add("--quick", action="store_true", help="check every answer, in a minute or two, without figures")
    add("--rounds", type=_at_least(1), help="rounds, each of which starts and measures every service (3)")
    add(
        "--seconds",
        type=_positive,
        help=f"length of each load (wrk: whole; {SECONDS['compare']:g}, {QUICK_SECONDS:g} with --quick, {lengths})",
    )
    add("--out", type=Path, help="folder to write JSON and PNG to (docs/runs; .run/compare with --quick)")
    add(
        "--generator",
        choices=("auto", "wrk", "built-in"),
        help="load generator of closed loops (auto: wrk, if it is installed and --seconds is whole)",
    )
    add("--classifiers", type=_at_least(1), help="number of classifier replicas of the graph (2)")
    add("--only", nargs="+", choices=names, metavar="NAME", help=f"measure only these: {', '.join(names)}")
    add("--core-hour", type=_positive, help="price of a core for an hour, with --capacity (0.04)")
    return parser
