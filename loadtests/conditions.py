"""Under what conditions something was measured: machine, versions, commit, bundle, command."""

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from features.machine import processor
from models.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ray", "onnxruntime", "fastapi", "uvicorn", "uvloop", "redis")


def conditions() -> dict[str, Any]:
    """Machine, versions, commit, version of the bundle, moment, command, and how busy the machine was before."""
    return {
        "machine": machine(),
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "bundle": Registry().load("production").version,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["scripts/compare", *sys.argv[1:]]),
        "load_before": round(os.getloadavg()[0], 2),
    }


def machine() -> str:
    """Processor, cores and memory."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{processor()}, {os.cpu_count()} cores (the load's too), {memory:.0f} GiB"


def commit() -> str:
    """The short hash of the checkout's commit, marked when files differ from it; 'unknown' without git."""
    if shutil.which("git") is None:
        return "unknown"
    git = ("git", "-C", str(ROOT))
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
