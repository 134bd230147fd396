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
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import options
from configuration import (
    ConfigurationError,
    address,
    deploy,
    needs_key,
    port_of,
    read,
    redis_urls,
    settle_here,
    unknown_desks,
)
from leftovers import clear, drain_haproxy, note_children, noting_children, scratch_folder
from local_redis import PORT, LocalRedis, RedisUnavailable
from ports import fault
from ray_environment import StartError, configure_ray, short_of_room
from ray_node import end_helpers, missing
from readiness import wait_until_ready
from redis_url import ping, seed, shown
from run_lock import AlreadyRunning, RunLock, StateUnusable
from terminal import accept_any_encoding, on_end, say

_LOOK_AFTER_S = 3.0
_LEAST_CPUS = 2
"""What the configuration's shares of CPUs add up to, at the most. One CPU shared by all is slower, not too little."""
_stop = threading.Event()


class Stopped(Exception):
    """Somebody asked to stop."""


class NodeLost(RuntimeError):
    """Which processes of Ray are gone, in one sentence."""


def main() -> int:
    arguments = options.parse()
    os.chdir(options.ROOT)  # a configuration's relative paths are the checkout's
    import_from(options.ROOT)
    accept_any_encoding()
    _catch_signals()
    try:
        with RunLock(arguments.state):
            _serve(arguments)
    except Stopped:
        return 0
    except (StartError, NodeLost, ConfigurationError, RedisUnavailable, AlreadyRunning, StateUnusable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def import_from(root: Path) -> None:
    """Take the project's modules from here, in Ray's processes, too: an environment may be another checkout's."""
    sys.path.insert(1, str(root))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))


def _catch_signals() -> None:
    """Note the wish to stop; whoever waits in `_pause` then raises. Ray installs handlers of its own, so call again."""
    on_end(lambda number, frame: _stop.set())


def _pause(seconds: float) -> None:
    if _stop.wait(seconds):
        raise Stopped


def _serve(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    scratch, begun = scratch_folder(arguments.state), False
    try:
        arguments.port = arguments.port or port_of(arguments.config)
        ports = configure_ray(arguments, scratch, say)
        _require_free(ports)
        wanted = read(arguments.config)
        begun = True
        for product in sorted(unknown_desks(wanted)):
            say(f"notice: desks names {product}, which is no product of the model")
        with _redis(arguments.state) as redis_url:
            say(f"Redis    {shown(redis_url)}")
            asyncio.run(seed(redis_url, say))
            _tell_of_others(redis_urls(wanted) - {redis_url})
            settle_here(wanted, arguments, redis_url)
            with _ray(arguments, scratch):
                deploy(wanted)
                wait_until_ready(address(wanted), len(wanted.applications), say, _pause)
                _announce(arguments, address(wanted), needs_key(wanted), time.monotonic() - started)
                _watch(arguments.state)
    finally:
        clear(arguments.state, scratch)
        if begun:
            say("stopped")


def _watch(state: Path) -> None:
    """Look after Ray's node until somebody asks to stop.

    Raises:
        NodeLost: it ended.
    """
    while not (gone := missing()):
        note_children(state)
        _pause(_LOOK_AFTER_S)
    _pause(1.0)  # a signal to the whole process group may reach this process last
    raise NodeLost(f"Ray's node lost {' and '.join(gone)}, without which nothing heals: start the service again")


@contextlib.contextmanager
def _redis(state: Path) -> Iterator[str]:
    given = os.environ.get("REDIS_URL")
    if given:
        asyncio.run(ping(given))
        yield given
        return
    server = LocalRedis(state / "redis", say)
    with server:
        if server.port != PORT:
            say(f"notice: port {PORT} is in use: give python -m features the option --redis-url {server.url}")
        yield server.url


def _tell_of_others(urls: set[str]) -> None:
    """Say that a configuration's Redis is not used, unless somebody has named another."""
    if urls and not os.environ.get("REDIS_URL"):
        given = ", ".join(sorted(url if url.startswith("$") else shown(url) for url in urls))
        say(f"notice: the configuration's redis_url {given} is not used; set REDIS_URL to use a Redis of your own")


@contextlib.contextmanager
def _ray(arguments: argparse.Namespace, scratch: Path) -> Iterator[None]:
    """A Ray cluster of this process's own; its processes end with it."""
    import ray
    from ray._private.utils import get_num_cpus

    if os.environ.get("RAY_ADDRESS"):
        raise StartError("RAY_ADDRESS is set: unset it, or use `serve deploy serve_config.yaml` on that cluster")
    say("Ray      starting…")
    try:
        try:
            with noting_children(arguments.state):
                ray.init(
                    address="local",
                    num_cpus=max(_LEAST_CPUS, int(get_num_cpus(override_docker_cpu_warning=True))),
                    include_dashboard=arguments.dashboard,
                    dashboard_port=arguments.dashboard_port,
                    object_store_memory=128 * 2**20,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1",
                    _metrics_export_port=arguments.metrics_port,
                )
        except SystemExit:  # of the handler that Ray installs for SIGTERM
            raise Stopped from None
        except Exception as error:  # Ray has no type of its own for what its processes say
            reason = (str(error).strip() or repr(error)).splitlines()[-1]
            raise StartError(f"Ray does not start: {reason}{short_of_room()}") from None
        _catch_signals()
        if not arguments.dashboard:
            end_helpers()
        note_children(arguments.state)
        _pause(0)
        yield
    finally:
        say("stopping…")
        with contextlib.redirect_stdout(io.StringIO()):  # Ray finds it worth a line that the controller ended itself
            with contextlib.suppress(Exception):
                _end_serve(scratch)
            ray.shutdown()


def _end_serve(scratch: Path) -> None:
    """Let what is on its way be answered, then end Serve, as long as there is a node.

    `serve.shutdown` would wait without one for half a minute or more; in a thread, it would end this process at once
    when `ray.shutdown` comes first.
    """
    import ray
    from ray.serve.context import _get_global_client

    if not ray.is_initialized() or missing():
        return
    drain_haproxy(scratch)
    if missing() or not (client := _get_global_client(raise_if_no_controller_running=False)):
        return
    ended = client._controller.graceful_shutdown.remote()
    while not missing() and not ray.wait([ended], timeout=0.2)[0]:
        pass


def _require_free(ports: dict[str, int]) -> None:
    options_of: dict[int, str] = {}
    for option, port in ports.items():
        if port in options_of:
            raise StartError(f"{options_of[port]} and {option} are both {port}: choose another port for one of them")
        options_of[port] = option
        found = fault(port)
        if found and option == "--dashboard-port" and _ray_runs():
            raise StartError(
                "a Ray cluster already runs on this machine: end it with `ray stop`, deploy to it with "
                "`serve deploy serve_config.yaml`, or start beside it with another --dashboard-port"
            )
        if found:
            end = "end what listens there, or " if found == "is in use" else ""
            raise StartError(f"port {port} {found}: {end}choose another with {option}")


def _ray_runs() -> bool:
    import psutil

    return any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"]))


def _announce(arguments: argparse.Namespace, address: str | None, keys: bool, seconds: float) -> None:
    dashboard = f"http://127.0.0.1:{arguments.dashboard_port}" if arguments.dashboard else "with --dashboard"
    say(f"metrics  http://127.0.0.1:{arguments.metrics_port}/metrics, Ray's dashboard {dashboard}")
    if address is None:
        say(f"ready after {seconds:.0f} s on http://127.0.0.1:{arguments.port}; Ctrl-C stops everything")
        return
    say(f"ready after {seconds:.0f} s on {address}, docs on {address}/docs; Ctrl-C stops everything. Try:\n")
    body = '{"user_id":"u1","text":"my card got eaten by the cash machine"}'
    key = " -H 'authorization: Bearer KEY'" if keys else ""
    say(f"  curl -s {address}/v1/predict -H 'content-type: application/json'{key} -d '{body}'\n", prefix="")


if __name__ == "__main__":
    raise SystemExit(main())
