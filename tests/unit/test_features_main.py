"""`python -m features`: one JSON line at the end, one line of error."""

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import psutil
import pytest
from local_redis import LocalRedis
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from features.__main__ import main
from features.schema import SCREEN_STREAM, ScreenEvent
from features.screens import key
from features.store import FeatureStore
from tests.unit.event_logs import DAY, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("redis")
def test_seed_says_what_it_wrote(redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--users", "3", "--redis-url", redis_server.url]) == 0
    assert json.loads(capsys.readouterr().out) == {"users": 3, "run": "demo"}


@pytest.mark.usefixtures("redis")
def test_show_prints_what_the_service_reads(redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]) -> None:
    async def write() -> None:
        async with AsyncRedis(port=redis_server.port, decode_responses=True) as client:
            store = FeatureStore(client)
            await store.write_screens([ScreenEvent(f"e{n}", "bø", f"screen {n}", datetime.now(UTC)) for n in range(3)])
            await store.write_usage("r1", {"ana": {"loans": 2}})
            await store.publish_run("r1")

    asyncio.run(write())
    assert main(["show", "ana", "bø", "ana", "--max-screens", "2", "--redis-url", redis_server.url]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "usage_run": "r1",
        "users": {
            "ana": {"recent_screens": [], "product_usage_60d": {"loans": 2}},
            "bø": {"recent_screens": ["screen 1", "screen 2"], "product_usage_60d": {}},
        },
    }


def test_a_store_that_does_not_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--redis-url", "redis://127.0.0.1:1/0"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: Redis does not answer")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [("simulate", "(default: 1000)"), ("materialize", "(default: 60)"), ("bench reads", "(default: 32)")],
)
def test_help_tells_defaults_and_not_the_password_of_redis(
    command: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://user:secret@h/0")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert told in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    "command", ["seed", "show u1", "ingest", "materialize", "training-set --feedback", "bench reads"]
)
@pytest.mark.parametrize(
    "url",
    ["redis://h:1?tls=1", "redis://h:1?ssl_ca_certs=/x", "redis+cluster://h:1?tls=1", "redis+cluster://h:1/3"],
)
def test_an_option_of_the_url_that_no_client_takes_is_one_line(
    tmp_path: Path, command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"materialize": ["--events", str(tmp_path)]}
    options["training-set --feedback"] = ["--log", str(tmp_path), "--out", str(tmp_path / "out.jsonl")]
    assert main([*command.split(), *options.get(command, []), "--redis-url", url]) == 2
    errors = capsys.readouterr().err
    assert (errors.startswith("error: --redis-url: an option that does not fit: "), errors.count("\n")) == (True, 1)
    assert url.partition("?")[2].partition("=")[0] in errors


@pytest.mark.usefixtures("redis")
def test_a_number_that_is_too_large_is_one_line(redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "reads", "--users", "1" + "0" * 30, "--redis-url", redis_server.url]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: a time or a number is out of range: ")


def test_too_little_memory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28, before[1]))
    try:
        assert main(["simulate", "--users", "10000000", "--days", "1", "--out", str(tmp_path)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert capsys.readouterr().err == "error: there is not enough memory\n"


def test_ctrl_c_is_one_line_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, DAY, [("u1", "a")])
    command = [sys.executable, "-m", "features", "materialize", "--events", str(tmp_path), "--redis-url"]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        with subprocess.Popen([*command, url], cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
            connection, _ = mute.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "error: interrupted\n")


@pytest.mark.usefixtures("redis")
def test_ingest_keeps_what_it_is_told_to(redis_server: LocalRedis) -> None:
    command = [sys.executable, "-m", "features", "ingest", "--redis-url", redis_server.url]
    limits = ["--max-screens", "2", "--screen-window-s", "60"]
    with Redis.from_url(redis_server.url) as client:
        for number in range(3):
            event: dict[Any, Any] = ScreenEvent(f"e{number}", "ana", "home", datetime.now(UTC)).fields()
            client.xadd(SCREEN_STREAM, event)
        with subprocess.Popen([*command, *limits], cwd=ROOT, stdout=DEVNULL) as process:
            try:
                while process.poll() is None and not client.exists(key("ana")):
                    time.sleep(0.01)
                process.send_signal(signal.SIGINT)
                process.wait(timeout=120)
            finally:
                process.kill()
        assert (client.zcard(key("ana")), 300 < client.ttl(key("ana")) <= 360) == (2, True)


@pytest.mark.parametrize("option", ["--batch=0", "--max-screens=51"])
def test_a_limit_that_cannot_be_is_one_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", option]) == 2
    name = option.removeprefix("--").partition("=")[0].replace("-", "_")
    assert capsys.readouterr().err.startswith(f"error: {name}: Input should be ")


@pytest.mark.parametrize(
    "command",
    ["seed --users=0", "bench throughput --events=-1", "bench freshness --rate=0", "bench freshness --seconds=0",
     "bench reads --users=0"],
)  # fmt: skip
def test_none_or_fewer_is_a_usage_error(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    assert capsys.readouterr().err.rstrip().endswith(f", got {command.rpartition('=')[2]}")


@pytest.mark.parametrize("command", ["materialize --events=x --as-of", "simulate --out=x --end"])
def test_what_is_no_date_is_told_with_one_that_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "25.11.2026"])
    assert "'25.11.2026' is no date, expected one such as 2026-11-25" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ingest", "seed"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--redis-url" in capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: python -m features" in capsys.readouterr().err
