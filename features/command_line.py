"""What the command lines of this project share: how options are shown, and how a command says what stopped it."""

import argparse
import sys
from typing import Any


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every option that takes a value and has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        bare = action.nargs == 0 or action.default in (None, [])
        return action.help if bare else super()._get_help_string(action)


class Command(argparse.ArgumentParser):
    """The parser of a command and of its own commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=Help)


def add_command(commands: Any, name: str, text: str) -> Any:
    """Add a command's parser to a group of `add_subparsers`; the text is shown in the list and in its own help."""
    return commands.add_parser(name, help=text, description=text)


def failed(reason: str, status: int = 2) -> int:
    """Say on standard error, in one line, what stopped a command; returns its exit code."""
    print(f"error: {reason}", file=sys.stderr)
    return status
