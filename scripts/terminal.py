"""What a program tells whoever started it, and how it is told to end."""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""


def accept_any_encoding() -> None:
    """Have the output show `?` for a character that its encoding lacks, instead of ending the program."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def on_end(handler: Callable[[int, FrameType | None], None]) -> None:
    """Have a handler take the signals that ask to end; what `nohup` has had ignored stays so."""
    for number in ENDS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def say(text: str, prefix: str = "[switchboard] ") -> None:
    """Print a line; once nobody reads any more, as after a closed terminal, say nothing from then on."""
    try:
        print(f"{prefix}{text}", flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in the buffer would fail again at the end
        os.close(nowhere)
