"""How the commands of this project show their options."""

import argparse
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
