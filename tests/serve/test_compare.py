"""`scripts/compare --quick`: every service starts, and every answer is the offline one. Its speed says nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_service_gives_the_offline_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests", "--quick", "--seconds", "0.5", "--out", str(tmp_path)]
    command += ["--only", "fastapi", "fastapi_lru", "graph", "ceiling"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=2400, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["mismatches"], line["refused"], line["failures"]) == (0, 0, 0)
    saved = json.loads((tmp_path / "compare.json").read_text())
    measured = {(row["target"], row["texts"]) for row in saved["loads"] if row["requests"]}
    assert measured == {(target, texts) for target in saved["targets"] for texts in ("unique", "zipf")}
    hits = {
        row["target"]: row["cached"] for row in saved["loads"] if (row["texts"], row.get("clients")) == ("zipf", 16)
    }
    assert min(hits["fastapi_lru"], hits["graph"]) > 0 == hits["fastapi"]
    assert line["checked"] >= 3 * 2 * 200
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
