"""Options that commands of `python -m features` share, the types of their arguments, and what is made of them."""

import argparse
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException

from features.store import LOCAL_URL, StoreConfig, connect

if TYPE_CHECKING:
    from features.partials import Partials

Summary = dict[str, Any]
_NEEDS = ("polars", "pandas", "pyarrow")


class MissingExtra(RuntimeError):
    """The requirements of the batch pipeline are not installed."""


def redis_url_option(command: argparse.ArgumentParser) -> None:
    """Add `--redis-url`."""
    command.add_argument("--redis-url", help=f"default: $REDIS_URL, or the local server, {LOCAL_URL}")


def redis_url_of(arguments: argparse.Namespace) -> str:
    """The URL of Redis. Makes a connection object without connecting, since only that checks the URL's options.

    Raises:
        ValueError, redis.RedisError: it is not a URL, or has an option that the client does not accept.
    """
    given = arguments.redis_url
    url = os.environ.get("REDIS_URL", LOCAL_URL) if given is None else str(given)
    try:
        client = connect(url, 1.0)
        if pool := getattr(client, "connection_pool", None):
            pool.make_connection()
    except (TypeError, AttributeError, RedisClusterException) as error:
        raise ValueError(f"--redis-url: an option that does not fit: {error}") from None
    return url


def day(text: str) -> date:
    """A date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, expected one such as 2026-11-25") from None


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
    """An argument that is a path; made absolute, since workers have other working directories."""
    return Path(text).absolute()


def partials_option(command: argparse.ArgumentParser) -> None:
    """Add `--partials`."""
    command.add_argument("--partials", type=path, help="folder that keeps daily aggregates (default: EVENTS.partials)")


def partials_of(arguments: argparse.Namespace) -> "Partials | None":
    """The partials of `--partials`, or None for the default.

    Raises:
        ValueError: the folder is inside a log, which could then not be read any more.
    """
    from features.partials import Partials

    if not arguments.partials:
        return None
    for name in ("events", "screens"):
        if log := getattr(arguments, name, None):
            inside = Path(os.path.relpath(arguments.partials.resolve(), log.resolve())).parts
            if not inside or inside[0].startswith("day="):
                raise ValueError(f"--partials: {arguments.partials} is part of the log --{name}: give another folder")
    return Partials(arguments.partials)


def store_options(command: argparse.ArgumentParser) -> None:
    """Add the store's limits for screens, which must equal those of the service and the ingesters."""
    for option, default in StoreConfig().model_dump(include={"max_screens", "screen_window_s"}).items():
        name = option.replace("_", "-")
        command.add_argument(f"--{name}", type=positive, default=default, help=f"the service's `store.{option}`")


def store_of(arguments: argparse.Namespace) -> StoreConfig:
    """The store's limits from the options."""
    return StoreConfig(max_screens=arguments.max_screens, screen_window_s=arguments.screen_window_s)


def ray_options(command: argparse.ArgumentParser) -> None:
    """Add `--ray-address` and `--cpus`."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--ray-address", help="a Ray cluster, such as ray://head:10001 or auto (default: local)")
    where.add_argument("--cpus", type=positive, help="number of CPUs of the local Ray (default: all)")


def tell_missing(summary: Mapping[str, Any]) -> None:
    """Say on standard error how many days of the window the usage log lacks, if any."""
    if missing := summary["days_missing"]:
        print(
            f"notice: the log lacks {missing} of {missing + summary['days_read'] + summary['days_reused']} days",
            file=sys.stderr,
        )


def require_extra() -> None:
    """Check that the extra `batch` is installed.

    Raises:
        MissingExtra: it is not; the message tells how to install it.
    """
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"{missing[0]} is not installed: run scripts/setup batch, or pip install switchboard[batch]")


def show(summary: Summary) -> None:
    print(json.dumps(summary))
