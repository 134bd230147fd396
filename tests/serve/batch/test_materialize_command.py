"""`python -m features materialize`: killed and run again, on a Ray of its own and on a cluster; how it refuses."""

import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ports import free_port, is_free
from redis import Redis

from features.batch import partials_beside
from features.partials import BUCKETS
from features.usage import RUN_KEY
from features.usage_writer import UsageWriter
from tests.serve.batch.commands import cluster
from tests.serve.batch.relay import Relay
from tests.serve.batch.usage import AS_OF, DAYS, USES, WINDOW
from tests.serve.conftest import ROOT
from tests.serve.polling import until
from tests.unit.event_logs import counted, table, write
from tests.unit.redis_process import RedisProcess
from tests.unit.usage_values import stored

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


class TestCommand:
    def test_killed_twice_and_run_again(
        self, log: Path, server: RedisProcess, writer: UsageWriter, client: Redis
    ) -> None:
        """Killed while a day is read, killed while buckets are written, and then complete, with progress bars."""
        many = [(f"u{number}", "a") for number in range(3_000)]
        write(log, WINDOW.first, many)
        client.set(RUN_KEY, "old")
        partials = partials_beside(log)
        fifo = log / f"day={WINDOW.last}" / "part-00001.parquet"
        os.mkfifo(fifo)  # whoever reads it waits
        with started(log, writer.redis_url, *cluster()):
            until(lambda: [partials.path(day).exists() for day in WINDOW.dates()], lambda there: sum(there) == 2)
        assert not partials.path(WINDOW.last).exists()
        write(log, WINDOW.last, [("u9", "z")], "part-00002.parquet")
        fifo.unlink()
        with Relay(server.port, 100_000, "hold") as relay, started(log, relay.url, "--cpus", "2"):
            assert relay.reached.wait(300)
        assert client.get(RUN_KEY) == "old"
        status, summary, errors = finish(log, writer.redis_url, *cluster())
        assert (status, summary["days_read"], summary["days_reused"]) == (0, 0, 3)
        expected = counted([many, USES[2], USES[1], [("u9", "z")]])
        assert (client.get(RUN_KEY), summary["users"]) == (summary["run"], len(expected))
        assert stored(client, summary["run"]) == expected
        assert "100%" in errors
        assert f"{BUCKETS - summary['buckets_reused']}/{BUCKETS - summary['buckets_reused']}" in errors

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_told_to_end_while_ray_works_it_says_so(
        self, log: Path, writer: UsageWriter, number: signal.Signals
    ) -> None:
        """Ray has a SIGTERM handler of its own, which aborts the process with a stack trace."""
        partials = partials_beside(log)
        os.mkfifo(log / f"day={WINDOW.last}" / "part-00001.parquet")  # whoever reads it waits
        with subprocess.Popen(
            command(log, writer.redis_url, *cluster()), cwd=ROOT, text=True, stderr=subprocess.PIPE
        ) as process:
            try:
                until(lambda: [partials.path(day).exists() for day in WINDOW.dates()], lambda there: sum(there) == 2)
                process.send_signal(number)
                _, errors = process.communicate(timeout=300)
            finally:
                process.kill()
        assert (process.returncode, errors.splitlines()) == (130, ["error: interrupted"])

    def test_through_a_client_of_the_cluster(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        """Which Ray Data itself cannot work through; a kernel's error arrives as it is."""
        with client_port() as port:
            status, summary, errors = finish(log, writer.redis_url, "--ray-address", f"ray://127.0.0.1:{port}")
            assert (status, summary["days_read"]) == (0, 3), errors
            assert stored(client, summary["run"]) == counted(USES[before] for before in (3, 2, 1))
            bad = write(log, WINDOW.last, table([("u", "a")]).drop_columns("product"), "part-00001.parquet")
            status, _, errors = finish(log, writer.redis_url, "--ray-address", f"ray://127.0.0.1:{port}")
        assert status == 2
        assert errors.splitlines()[-1].startswith(f"error: {bad}: column 'product' is missing; ")

    def test_a_column_that_does_not_fit_ends_it(self, log: Path, writer: UsageWriter, client: Redis) -> None:
        bad = write(log, WINDOW.last, table([("u", "a")]).drop_columns("product"), "part-00001.parquet")
        status, _, errors = finish(log, writer.redis_url, *cluster())
        assert status == 2
        reason = f"error: {bad}: column 'product' is missing; the file has event_id, user_id, at"
        assert errors.splitlines()[-1] == reason
        assert client.keys() == []

    def test_without_redis_nothing_begins(self, log: Path, tmp_path: Path) -> None:
        with RedisProcess(tmp_path / "redis") as server:
            pass
        status, _, errors = finish(log, f"redis://127.0.0.1:{server.port}/0")
        assert (status, errors.count("\n"), errors.startswith("error: Redis does not answer: ")) == (2, 1, True)
        assert not partials_beside(log).folder.exists()

    @pytest.mark.parametrize("option", ["--as-of=2026-13-01", "--window-days=0", "--window-days=9999999"])
    def test_a_window_that_cannot_be_is_refused(
        self, log: Path, writer: UsageWriter, client: Redis, option: str
    ) -> None:
        status, _, errors = finish(log, writer.redis_url, option)
        assert (status, "Traceback" in errors) == (2, False)
        assert client.keys() == []


@contextmanager
def client_port() -> Iterator[int]:
    """A port on which this module's Ray takes clients."""
    port = free_port()
    command = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server", "--host", "127.0.0.1"]
    options = ["--address", ray.get_runtime_context().gcs_address, "--port", str(port)]
    with subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: is_free(port), lambda free: not free)
            yield port
        finally:
            process.kill()


@contextmanager
def started(log: Path, url: str, *options: str) -> Iterator[None]:
    """The command, killed at the end."""
    with subprocess.Popen(command(log, url, *options), cwd=ROOT) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def finish(log: Path, url: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """The command's exit status, its JSON line, and what it said on standard error, which is a terminal."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with subprocess.Popen(
        command(log, url, *options), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        errors = b""
        with suppress(OSError):  # at its end
            while part := os.read(ours, 65_536):
                errors += part
        os.close(ours)
        output, _ = process.communicate(timeout=300)
    text = errors.decode().replace("\r\n", "\n")
    return process.returncode, json.loads(output.splitlines()[-1]) if process.returncode == 0 else {}, text


def command(log: Path, url: str, *options: str) -> list[str]:
    arguments = ["materialize", "--events", str(log), "--redis-url", url, "--as-of", str(AS_OF)]
    return [sys.executable, "-m", "features", *arguments, "--window-days", str(DAYS), *options]
