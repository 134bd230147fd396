"""What the service tells whoever started it."""

import io
import os
import sys


def accept_any_encoding() -> None:
    """Have the output show `?` for a character that its encoding lacks, instead of ending the program."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def say(text: str, prefix: str = "[switchboard] ") -> None:
    """Print a line; once nobody reads any more, as after a closed terminal, say nothing from then on."""
    try:
        print(f"{prefix}{text}", flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer would fail again at the end
        os.close(nowhere)
