"""The machine that a figure was measured on."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, or its architecture if the system does not name it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
