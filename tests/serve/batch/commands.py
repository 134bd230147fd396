"""Commands on this folder's Ray, which is there already."""

import subprocess
import sys
from pathlib import Path

import ray

from tests.serve.conftest import ROOT


def cluster() -> list[str]:
    """The options that use this folder's Ray instead of starting another."""
    return ["--ray-address", ray.get_runtime_context().gcs_address]


def features(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """`python -m features ARGUMENTS`."""
    command = [sys.executable, "-m", "features", *map(str, arguments), *cluster()]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
