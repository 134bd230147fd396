"""The built-in load generator, in a process of its own: `python -m loadtests.load --port 8000 --bodies FILE …`.

Closed loop: each client sends its next request when it has the answer to the one before. Open loop: requests are
due at the moments of a Poisson process whatever the service does, and latency counts from when a request was due,
so that a service that stalls cannot hide what it made others wait (no coordinated omission).
"""

import argparse
import gc
import json
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.connections import Connections, Tally

DRAIN_S = 20.0
"""How long to wait for answers after the last request."""
MAX_CONNECTIONS = 512
_APART_S = 0.001


def closed_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    clients: int,
    seconds: float,
    warm_up: float,
    keep: bool = False,
) -> Tally:
    """`clients` clients without a pause, until the time is over or the requests are.

    They come one after the other, at most a millisecond apart: of many that connect at once, one of a service's
    processes would accept nearly all, and others would have nothing to do.
    """
    begin = time.perf_counter() + warm_up
    end = begin + seconds
    connections = Connections(address, requests, begin, end, keep)
    ready = [connections.open()]
    last = now = time.perf_counter()
    while ready or connections.busy:
        for connection in ready:
            now = time.perf_counter()
            if now < end and not connections.exhausted:
                connections.send(connection, now)
                last = now
        if now > end + DRAIN_S:
            break
        more = len(connections) < clients and now < end and not connections.exhausted
        ready = connections.receive(now + (_APART_S if more else 0.1)) if connections.busy else []
        if more:
            ready.append(connections.open())
        now = time.perf_counter()
    return _tallied(connections, last if connections.exhausted else end, begin)


def open_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    warm_up: float,
    seed: int = 0,
    keep: bool = False,
    connections_at_most: int = MAX_CONNECTIONS,
) -> Tally:
    """`rate` requests a second on average, with exponential gaps."""
    rng = random.Random(seed)
    due = time.perf_counter()
    begin = due + warm_up
    end = begin + seconds
    connections = Connections(address, requests, begin, end, keep)
    waiting: deque[float] = deque()
    now = due
    while now < end + DRAIN_S and (due < end or waiting or connections.busy):
        while due <= now and due < end:
            waiting.append(due)
            due += rng.expovariate(rate)
        while waiting and not connections.exhausted and (connections.idle or len(connections) < connections_at_most):
            connection = connections.idle.pop() if connections.idle else connections.open()
            connections.send(connection, waiting.popleft())
        if connections.exhausted and not connections.busy:
            break
        until = due if due < end and not connections.exhausted else now + 0.1
        connections.idle.extend(connections.receive(until))
        now = time.perf_counter()
    connections.tally.dropped += sum(moment >= begin for moment in waiting)
    return _tallied(connections, min(due, end), begin)


def _tallied(connections: Connections, end: float, begin: float) -> Tally:
    tally = connections.close()
    tally.seconds = max(end - begin, 1e-9)
    return tally


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; NaN of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else float("nan")


def figures(tally: Tally, deadline_s: float = math.inf) -> dict[str, Any]:
    """A tally as figures: requests per second, latency percentiles in milliseconds, failures.

    Args:
        deadline_s: latency up to which an answer is in time.
    """
    ordered = sorted(tally.latencies)
    milliseconds = {
        name: round(percentile(ordered, share) * 1e3, 3) if ordered else None
        for name, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99))
    }
    return {
        "requests": sum(tally.statuses.values()),
        "seconds": round(tally.seconds, 3),
        "per_second": round(tally.statuses[200] / tally.seconds, 1),
        "in_time_per_second": round(sum(latency <= deadline_s for latency in ordered) / tally.seconds, 1),
        **milliseconds,
        "cached": round(tally.cached / max(1, len(ordered)), 4),
        "failures": sum(tally.statuses.values()) - tally.statuses[200] + tally.dropped,
        "statuses": {str(status): n for status, n in sorted(tally.statuses.items())},
    }


def http_requests(bodies: Sequence[bytes], port: int, path: str = "/v1/predict") -> list[bytes]:
    """Complete HTTP requests that post the bodies."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    start = head.encode()
    return [b"%b%d\r\n\r\n%b" % (start, len(body), body) for body in bodies]


def main() -> int:
    """Run one load and print its figures as one JSON line."""
    arguments = _arguments()
    address = ("127.0.0.1", arguments.port)
    requests = http_requests(arguments.bodies.read_bytes().splitlines(), arguments.port)
    keep = arguments.answers is not None
    gc.freeze()
    gc.disable()
    timing = (arguments.seconds, arguments.warm_up)
    if arguments.rate:
        most = arguments.connections
        tally = open_loop(address, requests, arguments.rate, *timing, keep=keep, connections_at_most=most)
    else:
        tally = closed_loop(address, requests, arguments.clients, *timing, keep=keep)
    if keep:
        lines = (json.dumps({"line": i, "status": s, "body": body.decode()}) for i, s, body in tally.answers)
        arguments.answers.write_text("".join(f"{line}\n" for line in lines))
    print(json.dumps(figures(tally, arguments.deadline)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.load", description="Send one load to a service; prints one JSON line."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="file of JSON bodies, one per line, each sent once")
    parser.add_argument("--clients", type=int, default=1, help="number of clients of the closed loop")
    parser.add_argument("--rate", type=float, help="requests per second of an open loop, instead of --clients")
    parser.add_argument(
        "--connections", type=int, default=MAX_CONNECTIONS, help="maximum number of connections of the open loop"
    )
    parser.add_argument(
        "--deadline", type=float, default=math.inf, help="seconds within which an answer counts as in time"
    )
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=1, help="seconds of load before the measurement")
    parser.add_argument("--answers", type=Path, help="file to write all answers to, one JSON object per line")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
