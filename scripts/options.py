"""The command line of `scripts/serve`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with absolute paths: Redis and the replicas read them in other folders. `port` may be None."""
    parser = argparse.ArgumentParser(
        prog="scripts/serve",
        description="Start the whole service on 127.0.0.1. It uses the Redis at $REDIS_URL, or starts one.",
    )
    parser.add_argument("--port", type=port, help="HTTP port (default: the configuration's, or 8000)")
    parser.add_argument(
        "--dashboard", action="store_true", help="start Ray's dashboard, which `serve status` needs; takes 0.3 GiB"
    )
    parser.add_argument("--dashboard-port", type=port, help="port of Ray's dashboard (default: 8265)")
    parser.add_argument(
        "--metrics-port", type=port, default=9090, help="port of the Prometheus metrics (default: 9090)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=ROOT / ".run",
        help="folder for Redis' data, the served log and locks (default: .run)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=ROOT / "serve_config.yaml",
        help="Ray Serve configuration (default: serve_config.yaml)",
    )
    parser.add_argument(
        "--served-log", metavar="FOLDER", help="folder of the served log, or `off` (default: STATE/served)"
    )
    parser.add_argument(
        "--proxy",
        choices=("auto", "fast", "standard"),
        default="auto",
        help="HAProxy (fast), Ray's own (standard), or HAProxy if there is one (default: auto)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.dashboard_port and not parsed.dashboard:
        parser.error("--dashboard-port has no effect without --dashboard")
    parsed.dashboard_port = parsed.dashboard_port or 8265
    parsed.state, parsed.config = parsed.state.absolute(), parsed.config.absolute()
    if parsed.served_log and parsed.served_log != "off":
        parsed.served_log = str(Path(parsed.served_log).absolute())
    return parsed


def port(text: str) -> int:
    """A number that a listener can have."""
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text}")
