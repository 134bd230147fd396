"""The processes of a service, which come and go while a test looks."""

from collections.abc import Iterator
from pathlib import Path

import psutil


def below(pid: int) -> Iterator[tuple[psutil.Process, list[str]]]:
    """What runs below a process, with its command line."""
    for child in psutil.Process(pid).children(recursive=True):
        try:
            line = child.cmdline()
        except psutil.Error:
            continue
        yield child, line


def replicas(pid: int, deployment: str = "") -> list[psutil.Process]:
    """The replicas of a deployment of the application `switchboard`, or of all, below a process."""
    name = f"ray::ServeReplica:switchboard:{deployment}"
    return [child for child, line in below(pid) if any(part.startswith(name) for part in line[:1])]


def named(pid: int, *programs: str) -> list[psutil.Process]:
    """The processes below one that run these programs."""
    return [child for child, line in below(pid) if Path(line[0] if line else "").name in programs]
