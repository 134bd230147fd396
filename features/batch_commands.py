"""The batch commands of `python -m features`. What they need is imported when they run: serving does without it."""

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.store import StoreConfig, connect

if TYPE_CHECKING:
    from features.partials import Partials

Summary = dict[str, Any]
_NEEDS = ("polars", "pandas", "pyarrow")


class MissingExtra(RuntimeError):
    """The requirements of the batch pipeline are not installed."""


def add_commands(commands: Any, redis_url: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the parsers of the batch commands."""
    from features import bench_commands, offline_commands

    materialize = commands.add_parser("materialize", help="the usage log's last 60 days into the feature store")
    materialize.set_defaults(run=_materialize)
    materialize.add_argument("--events", type=path, required=True, help="usage log: Parquet under day=YYYY-MM-DD/")
    materialize.add_argument(
        "--as-of", type=date.fromisoformat, default=datetime.now(UTC).date(), help="the window ends before this day"
    )
    materialize.add_argument("--window-days", type=positive, default=60, help="days of uses that count")
    partials_option(materialize)
    materialize.add_argument("--ttl-days", type=positive, default=3, help="how long the values live in Redis")
    materialize.add_argument("--no-publish", action="store_true", help="write the run, but do not show it to readers")
    materialize.add_argument("--allow-older", action="store_true", help="show it even where readers see a newer one")
    ray_options(materialize)
    redis_url(materialize)

    simulate = commands.add_parser("simulate", help="made-up users, usage logs, screens and chats, of any size")
    simulate.set_defaults(run=_simulate)
    simulate.add_argument("--out", type=path, required=True, help="folder for usage/, screens/ and chats.jsonl")
    simulate.add_argument("--users", type=positive, default=1_000, help="customers who leave events")
    simulate.add_argument("--days", type=positive, default=60, help="days of the usage log")
    simulate.add_argument("--end", type=date.fromisoformat, default=datetime.now(UTC).date(), help="day after the last")
    simulate.add_argument("--events", type=positive, help="about how many uses in all (default: natural activity)")
    simulate.add_argument("--messages", type=int, default=1_000, help="chats on the last day")
    simulate.add_argument("--messages-file", type=path, help="labelled JSONL or CSV that texts are drawn from")
    simulate.add_argument("--malformed", type=float, default=0.0, help="share of usage rows to spoil, 0 to 1")
    simulate.add_argument("--seed", type=int, default=0, help="of everything that is drawn by chance")
    offline_commands.add_commands(commands, redis_url)
    bench_commands.add_commands(commands, redis_url)


def partials_option(command: argparse.ArgumentParser) -> None:
    """Where the partials are."""
    command.add_argument("--partials", type=path, help="daily aggregates are kept here (default: EVENTS.partials)")


def partials_of(arguments: argparse.Namespace) -> "Partials | None":
    """The partials that were asked for, if not the log's own."""
    from features.partials import Partials

    return Partials(arguments.partials) if arguments.partials else None


def store_options(command: argparse.ArgumentParser) -> None:
    """The store's limits for screens, which the service and the ingesters have too."""
    for option, default in StoreConfig().model_dump(include={"max_screens", "screen_window_s"}).items():
        name = option.replace("_", "-")
        command.add_argument(f"--{name}", type=positive, default=default, help=f"`store.{option}` of the service")


def store_of(arguments: argparse.Namespace) -> StoreConfig:
    """The store's limits that were asked for."""
    return StoreConfig(max_screens=arguments.max_screens, screen_window_s=arguments.screen_window_s)


def ray_options(command: argparse.ArgumentParser) -> None:
    """Where Ray runs."""
    command.add_argument("--ray-address", help="a Ray cluster, such as ray://head:10001 or auto (default: local)")
    command.add_argument("--cpus", type=positive, help="CPUs of a local Ray (default: all)")


def tell_missing(summary: Mapping[str, Any]) -> None:
    """Say on standard error how many days of the wanted ones the usage log lacks, if any."""
    if missing := summary["days_missing"]:
        print(
            f"notice: the log lacks {missing} of {missing + summary['days_read'] + summary['days_reused']} days",
            file=sys.stderr,
        )


def _materialize(arguments: argparse.Namespace) -> None:
    require_extra()
    from features.batch import Window, materialize, refuse_older
    from features.event_log import day_files
    from features.ray_session import session
    from features.usage_writer import UsageWriter

    writer = UsageWriter(redis_url_of(arguments), arguments.ttl_days * 86_400)
    day_files(arguments.events)
    window, present = Window(arguments.as_of, arguments.window_days), writer.present()
    publish, allow_older = not arguments.no_publish, arguments.allow_older
    if publish and not allow_older:
        refuse_older(window, present)
    with session(arguments.ray_address, arguments.cpus):
        partials = partials_of(arguments)
        summary = materialize(arguments.events, window, writer, partials, publish=publish, allow_older=allow_older)
    tell_missing(summary)
    show(summary)


def _simulate(arguments: argparse.Namespace) -> None:
    from features.simulate import simulate

    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "out")}
    show(simulate(arguments.out, **options))


def require_extra() -> None:
    """Refuse in one sentence where the extra is missing.

    Raises:
        MissingExtra: naming what is missing and how to get it.
    """
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"{missing[0]} is not installed: run scripts/setup batch, or pip install switchboard[batch]")


def redis_url_of(arguments: argparse.Namespace) -> str:
    """The Redis that was asked for; clients see only when they connect what is wrong with its options.

    Raises:
        ValueError, redis.RedisError: it is no URL, or has an option that clients do not take.
    """
    url = str(arguments.redis_url)
    try:
        client = connect(url, 1.0)
        if pool := getattr(client, "connection_pool", None):
            pool.make_connection()
    except (TypeError, AttributeError) as error:
        raise ValueError(f"--redis-url: an option that does not fit: {error}") from None
    return url


def show(summary: Summary) -> None:
    print(json.dumps(summary))


def positive(text: str) -> int:
    """An argument that is a number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def number(least: float, most: float) -> Callable[[str], float]:
    """The type of an argument that is a number from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}, got {text}")
        return value

    return parse


def path(text: str) -> Path:
    """An argument that is a path, as workers see it too, whose working directories are their own."""
    return Path(text).absolute()
