"""Runs the whole service on this machine: Redis, Ray, both applications; stops all of it together.

Everything that it starts ends with it: Ray's processes are children of this one, Redis and HAProxy are ended by
pid. What it must remember lives in `--state`.
"""

import argparse
import asyncio
import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configuration import ConfigurationError, deploy, read, settle_here
from local_redis import LocalRedis, RedisUnavailable, ping
from ports import is_free
from ray_environment import StartError, configure_ray, end_haproxy, end_helpers, scratch_folder
from run_lock import AlreadyRunning, RunLock

ROOT = Path(__file__).resolve().parent.parent
DEMO_USERS = 300
_stop = threading.Event()


class Stopped(Exception):
    """Somebody asked to stop."""


def main() -> int:
    arguments = _arguments()
    _catch_signals()
    try:
        with RunLock(arguments.state):
            _serve(arguments)
    except Stopped:
        return 0
    except (StartError, ConfigurationError, RedisUnavailable, AlreadyRunning) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _catch_signals() -> None:
    """Note the wish to stop; whoever waits in `_pause` then raises. Ray installs handlers of its own, so call again."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: _stop.set())


def _pause(seconds: float) -> None:
    if _stop.wait(seconds):
        raise Stopped


def _serve(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    scratch = scratch_folder(arguments.state)
    try:
        ports = configure_ray(arguments, scratch, _say)
        _require_free(ports)
        wanted = read(arguments.config)
        with _redis(arguments.state) as redis_url:
            _say(f"Redis    {_shown(redis_url)}")
            asyncio.run(_seed(redis_url))
            settle_here(wanted, arguments, redis_url)
            with _ray(arguments):
                deploy(wanted)
                _wait_ready(arguments, len(wanted.applications))
                _announce(arguments, time.monotonic() - started)
                while True:
                    _pause(3600)
    finally:
        end_haproxy(scratch)
        shutil.rmtree(scratch, ignore_errors=True)
        _say("stopped")


@contextlib.contextmanager
def _redis(state: Path) -> Iterator[str]:
    given = os.environ.get("REDIS_URL")
    if given:
        asyncio.run(ping(given))
        yield given
        return
    server = LocalRedis(state / "redis", _say)
    with server:
        yield server.url


async def _seed(redis_url: str) -> None:
    from features import demo
    from features.store import RUN_KEY, FeatureStore, connect

    redis = connect(redis_url, 5.0)
    try:
        if await redis.get(RUN_KEY) is None:
            await demo.seed(FeatureStore(redis), DEMO_USERS)
            _say(f"Redis    seeded usage of {DEMO_USERS} demo users, u1 to u{DEMO_USERS}")
    finally:
        await redis.aclose()


@contextlib.contextmanager
def _ray(arguments: argparse.Namespace) -> Iterator[None]:
    """A Ray cluster of this process's own; its processes end with it."""
    import ray
    from ray import serve

    if os.environ.get("RAY_ADDRESS"):
        raise StartError("RAY_ADDRESS is set: unset it, or use `serve deploy serve_config.yaml` on that cluster")
    _say("Ray      starting…")
    try:
        ray.init(
            address="local",
            include_dashboard=arguments.dashboard,
            dashboard_port=arguments.dashboard_port,
            object_store_memory=128 * 2**20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _metrics_export_port=arguments.metrics_port,
        )
        _catch_signals()
        if not arguments.dashboard:
            end_helpers()
        _pause(0)
        yield
    finally:
        _say("stopping…")
        with contextlib.redirect_stdout(io.StringIO()):  # Ray finds it worth a line that the controller ended itself
            with contextlib.suppress(Exception):
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def _require_free(ports: dict[str, int]) -> None:
    for option, port in ports.items():
        if not is_free(port):
            if option == "--dashboard-port" and _ray_runs():
                raise StartError(
                    "a Ray cluster already runs on this machine: end it with `ray stop`, deploy to it with "
                    "`serve deploy serve_config.yaml`, or start beside it with another --dashboard-port"
                )
            raise StartError(f"port {port} is in use: end what listens there, or choose another with {option}")


def _ray_runs() -> bool:
    import psutil

    return any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"]))


def _wait_ready(arguments: argparse.Namespace, wanted: int, timeout_s: float = 240) -> None:
    from ray import serve

    shown, until = "", time.monotonic() + timeout_s
    while time.monotonic() < until:
        applications = serve.status().applications
        failed = [a for a in applications.values() if a.status.value in ("DEPLOY_FAILED", "UNHEALTHY")]
        if failed:
            raise StartError(f"an application did not deploy: {_reason(failed[0])}")
        states = ", ".join(
            f"{name} {d.status.value.lower()}" for a in applications.values() for name, d in a.deployments.items()
        )
        if states != shown and sys.stdout.isatty():
            _say(f"Serve    {states}")
            shown = states
        if all_run(applications, wanted) and _is_ready(arguments.port):
            return
        _pause(0.25)
    raise StartError(f"the service was not ready within {timeout_s:.0f} s; logs: /tmp/ray/session_latest/logs/serve")


def all_run(applications: Mapping[str, Any], wanted: int) -> bool:
    """Whether Ray Serve knows as many applications as are wanted, and all of them run."""
    return len(applications) == wanted and all(a.status.value == "RUNNING" for a in applications.values())


def _reason(application: Any) -> str:
    message = application.message or next((d.message for d in application.deployments.values() if d.message), "")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else application.status.value


def _is_ready(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _announce(arguments: argparse.Namespace, seconds: float) -> None:
    address = f"http://127.0.0.1:{arguments.port}"
    dashboard = f"http://127.0.0.1:{arguments.dashboard_port}" if arguments.dashboard else "with --dashboard"
    _say(f"metrics  http://127.0.0.1:{arguments.metrics_port}/metrics, Ray's dashboard {dashboard}")
    _say(f"ready after {seconds:.0f} s on {address}, docs on {address}/docs; Ctrl-C stops everything. Try:\n")
    body = '{"user_id":"u1","text":"my card got eaten by the cash machine"}'
    print(f"  curl -s {address}/v1/predict -H 'content-type: application/json' -d '{body}'\n", flush=True)


def _shown(url: str) -> str:
    """An address without its credentials."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _say(text: str) -> None:
    print(f"[switchboard] {text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/serve", description="Serve on 127.0.0.1. REDIS_URL: use that Redis.")
    parser.add_argument("--port", type=int, default=8000, help="HTTP port (8000)")
    parser.add_argument("--dashboard", action="store_true", help="Ray's dashboard and `serve status`, for 0.3 GiB more")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="port of Ray's dashboard (8265)")
    parser.add_argument("--metrics-port", type=int, default=9090, help="port of the Prometheus metrics (9090)")
    parser.add_argument("--state", type=Path, default=ROOT / ".run", help="folder for Redis' data and locks")
    parser.add_argument("--config", type=Path, default=ROOT / "serve_config.yaml", help="Serve configuration")
    parser.add_argument("--served-log", metavar="FOLDER", help="log of what was served, or off (STATE/served)")
    parser.add_argument("--proxy", choices=("auto", "fast", "standard"), default="auto", help="HTTP proxy (auto)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
