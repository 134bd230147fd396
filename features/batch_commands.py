"""The batch commands of `python -m features`. What they need is imported when they run: serving does without it."""

import argparse
from datetime import UTC, datetime
from typing import Any

from features.arguments import (
    day,
    partials_of,
    partials_option,
    path,
    positive,
    ray_options,
    redis_url_of,
    redis_url_option,
    require_extra,
    show,
    tell_missing,
)
from features.command_line import add_command


def add_commands(commands: Any) -> None:
    """Add the parsers of the batch commands."""
    materialize = add_command(commands, "materialize", "aggregate the usage log's last 60 days into the feature store")
    materialize.set_defaults(run=_materialize)
    materialize.add_argument("--events", type=path, required=True, help="usage log: Parquet under day=YYYY-MM-DD/")
    materialize.add_argument("--as-of", type=day, default=datetime.now(UTC).date(), help="first day after the window")
    materialize.add_argument("--window-days", type=positive, default=60, help="length of the window in days")
    partials_option(materialize)
    materialize.add_argument("--ttl-days", type=positive, default=3, help="days after which the values expire in Redis")
    materialize.add_argument("--no-publish", action="store_true", help="write the run without making it the live one")
    materialize.add_argument("--allow-older", action="store_true", help="make it the live run even if a newer one is")
    ray_options(materialize)
    redis_url_option(materialize)

    simulate = add_command(commands, "simulate", "generate made-up users, usage logs, screen logs and chats")
    simulate.set_defaults(run=_simulate)
    simulate.add_argument("--out", type=path, required=True, help="folder for usage/, screens/ and chats.jsonl")
    simulate.add_argument("--users", type=positive, default=1_000, help="number of customers")
    simulate.add_argument("--days", type=positive, default=60, help="length of the usage log in days")
    simulate.add_argument("--end", type=day, default=datetime.now(UTC).date(), help="first day after the log")
    simulate.add_argument("--events", type=positive, help="approximate total of uses (default: natural activity)")
    simulate.add_argument("--messages", type=int, default=1_000, help="number of chats, on the last day")
    simulate.add_argument("--messages-file", type=path, help="labelled JSONL or CSV to draw the texts of chats from")
    simulate.add_argument("--malformed", type=float, default=0.0, help="share of usage rows to malform, 0 to 1")
    simulate.add_argument("--seed", type=int, default=0, help="random seed")


def _materialize(arguments: argparse.Namespace) -> None:
    require_extra()
    from features.batch import Window, materialize, refuse_older
    from features.event_log import day_files
    from features.ray_session import session
    from features.usage_writer import UsageWriter

    writer = UsageWriter(redis_url_of(arguments), arguments.ttl_days * 86_400)
    day_files(arguments.events)
    partials = partials_of(arguments)
    window, present = Window(arguments.as_of, arguments.window_days), writer.present()
    publish, allow_older = not arguments.no_publish, arguments.allow_older
    if publish and not allow_older:
        refuse_older(window, present)
    with session(arguments.ray_address, arguments.cpus):
        summary = materialize(arguments.events, window, writer, partials, publish=publish, allow_older=allow_older)
    tell_missing(summary)
    show(summary)


def _simulate(arguments: argparse.Namespace) -> None:
    from features.simulate import simulate

    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "out")}
    show(simulate(arguments.out, **options))
