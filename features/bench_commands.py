"""`python -m features bench`: the figures of docs/features.md, each as one JSON line, on a real Redis."""

import argparse
import asyncio
from typing import Any

from features.arguments import number, path, positive, redis_url_of, redis_url_option, require_extra, show
from features.command_line import add_command


def add_commands(commands: Any) -> None:
    """Add the parser of `bench` and of each benchmark."""
    bench = add_command(commands, "bench", "measure the feature store and the batch pipeline")
    names = bench.add_subparsers(required=True, metavar="benchmark")
    throughput = add_command(names, "throughput", "measure how many events/s one ingester stores")
    throughput.set_defaults(run=_throughput)
    throughput.add_argument("--events", type=positive, default=100_000, help="events on the stream")
    freshness = add_command(names, "freshness", "measure the time from an event to the first read that shows it")
    freshness.set_defaults(run=_freshness)
    freshness.add_argument("--rate", type=positive, default=1_000, help="events per second")
    freshness.add_argument("--seconds", type=number(1, 86_400), default=20.0, help="duration")
    reads = add_command(names, "reads", "measure the latency of one read of many users")
    reads.set_defaults(run=_reads)
    reads.add_argument("--users", type=positive, default=32, help="users per read")
    batch = add_command(names, "materialize", "time full and incremental runs against plain polars on the same files")
    batch.set_defaults(run=_materialize)
    batch.add_argument("--events", type=path, required=True, help="usage log, such as `simulate` writes")
    for command in (throughput, freshness, reads, batch):
        redis_url_option(command)


def _throughput(arguments: argparse.Namespace) -> None:
    from features.stream_bench import throughput

    show(asyncio.run(throughput(redis_url_of(arguments), events=arguments.events)))


def _freshness(arguments: argparse.Namespace) -> None:
    from features.stream_bench import freshness

    show(asyncio.run(freshness(redis_url_of(arguments), rate=arguments.rate, seconds=arguments.seconds)))


def _reads(arguments: argparse.Namespace) -> None:
    from features.stream_bench import reads

    show(asyncio.run(reads(redis_url_of(arguments), users=arguments.users)))


def _materialize(arguments: argparse.Namespace) -> None:
    require_extra()
    from features.batch_bench import bench

    show(bench(arguments.events, redis_url_of(arguments)))
