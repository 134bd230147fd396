"""Command line: `python -m features COMMAND`; `--help` lists the commands."""

import argparse
import asyncio
import json
import signal
import sys
from contextlib import aclosing, suppress
from dataclasses import asdict
from itertools import chain
from types import FrameType

from pydantic import ValidationError
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from features import batch_commands, bench_commands, demo, offline_commands
from features.arguments import (
    MissingExtra,
    path,
    positive,
    redis_url_of,
    redis_url_option,
    require_extra,
    store_of,
    store_options,
)
from features.command_line import Command, add_command, failed
from features.erasure import erase_online
from features.store import FeatureStore, connect
from features.stream import IngesterConfig, ScreenIngester


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error is one line on standard error and exit code 2, an interrupt exit code 130."""
    arguments = _parser().parse_args(argv)
    try:
        running = arguments.run(arguments)
        if running is not None:
            asyncio.run(running)
    except (ResponseError, AuthenticationError, AuthorizationError) as error:
        return failed(f"Redis refused a command: {error}")
    except (RedisError, TimeoutError) as error:
        return failed(f"Redis does not answer: {error}")
    except ValidationError as error:
        return failed("; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()))
    except (ValueError, OSError, MissingExtra) as error:
        return failed(str(error))
    except OverflowError as error:
        return failed(f"a time or a number is out of range: {error}")
    except MemoryError:
        return failed("there is not enough memory")
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    return 0


async def _ingest(arguments: argparse.Namespace) -> None:
    config = IngesterConfig(batch=arguments.batch)
    redis = connect(redis_url_of(arguments), config.client_timeout_s)
    ingester = ScreenIngester(redis, FeatureStore(redis, store_of(arguments)), config)
    try:
        await ingester.prepare()
        task = asyncio.ensure_future(ingester.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        print(f"ingesting {config.stream} as {ingester.consumer}; stop with Ctrl-C", file=sys.stderr)
        with suppress(asyncio.CancelledError):
            await task
    finally:
        await redis.aclose()
    print(json.dumps({"stored": ingester.stored, "dead": ingester.dead}))


async def _seed(arguments: argparse.Namespace) -> None:
    async with aclosing(connect(redis_url_of(arguments), 5.0)) as redis:
        await demo.seed(FeatureStore(redis), arguments.users)
    print(json.dumps({"users": arguments.users, "run": demo.RUN}))


async def _show(arguments: argparse.Namespace) -> None:
    users = list(dict.fromkeys(arguments.users))
    async with aclosing(connect(redis_url_of(arguments), 5.0)) as redis:
        reading = await FeatureStore(redis, store_of(arguments)).reading(users)
    features = {user: asdict(found) for user, found in zip(users, reading.users, strict=True)}
    print(json.dumps({"usage_run": reading.usage_run, "users": features}))


async def _erase(arguments: argparse.Namespace) -> None:
    users, log, dry_run = set(arguments.users), arguments.log, arguments.dry_run
    if log:
        require_extra()
        from features.served_erasure import erase_served, requests_of
    served = requests_of(log, users) if log else {}
    requests = set(chain.from_iterable(served.values()))
    async with aclosing(connect(redis_url_of(arguments), 10.0)) as redis:
        erased = await erase_online(redis, users, requests, dry_run)
    if log:  # last, since only it tells which feedback is theirs
        erased["served"] = sum(map(len, served.values()))
        if not dry_run:
            erase_served(served, users)
    print(json.dumps({"users": len(users), "dry_run": dry_run, **erased}))


def _parser() -> argparse.ArgumentParser:
    text = "Features: streaming and batch pipelines, point-in-time training sets, skew and drift."
    parser = argparse.ArgumentParser(prog="python -m features", description=text)
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=Command)
    ingest = add_command(commands, "ingest", "write screen events from the Redis stream to the feature store")
    ingest.set_defaults(run=_ingest)
    ingest.add_argument("--batch", type=int, default=500, help="most stream entries to read at once")
    store_options(ingest)
    seed = add_command(commands, "seed", "write made-up product usage for the users u1, u2, …")
    seed.set_defaults(run=_seed)
    seed.add_argument("--users", type=positive, default=demo.USERS, help="number of users")
    show = add_command(commands, "show", "print the features of users as the service reads them now")
    show.set_defaults(run=_show)
    show.add_argument("users", nargs="+", metavar="USER")
    store_options(show)
    erase = add_command(commands, "erase", "delete what Redis and the served log hold about users")
    erase.set_defaults(run=_erase)
    erase.add_argument("users", nargs="+", metavar="USER")
    erase.add_argument("--log", type=path, help="served log; without it, Redis alone, and no feedback")
    erase.add_argument("--dry-run", action="store_true", help="only count what there is")
    for command in (ingest, seed, show, erase):
        redis_url_option(command)
    for group in (batch_commands, offline_commands, bench_commands):
        group.add_commands(commands)
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM like SIGINT at this moment; if SIGINT is ignored, raise KeyboardInterrupt."""
    ctrl_c = signal.getsignal(signal.SIGINT)
    (ctrl_c if callable(ctrl_c) else signal.default_int_handler)(number, frame)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    raise SystemExit(main())
