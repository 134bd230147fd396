"""The commands that read logs: `training-set`, `skew`, `drift`. What they need is imported when they run."""

import argparse
import asyncio
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.arguments import (
    number,
    partials_of,
    partials_option,
    path,
    positive,
    ray_options,
    redis_url_of,
    redis_url_option,
    require_extra,
    show,
    store_of,
    store_options,
    tell_missing,
)
from features.command_line import add_command
from features.delays import LAG, MAX_LAG, MAX_RUN_DELAY, RUN_DELAY
from features.labelled import CORPUS
from features.schema import FEEDBACK_STREAM

if TYPE_CHECKING:
    from features.skew import Report

_ONLY_WITHOUT_FEEDBACK = (
    "events",
    "screens",
    "partials",
    "bundle",
    "run_delay_hours",
    "window_days",
    "max_screens",
    "screen_window_s",
    "ray_address",
    "cpus",
)
_HOUR, _MILLISECOND = timedelta(hours=1), timedelta(milliseconds=1)


def add_commands(commands: Any) -> None:
    """Add the parsers."""
    training = add_command(commands, "training-set", "join chats with the features of their moment")
    training.set_defaults(run=_training_set, usual=training.get_default)
    training.add_argument("--out", type=path, required=True, help="rows for `models train`: .jsonl or .csv")
    training.add_argument(
        "--chats", type=path, help="rows of text, product, user_id, at; with --feedback of request_id, text"
    )
    _logs(training, required=False)
    _bundle(training)
    training.add_argument(
        "--run-delay-hours",
        type=number(0, MAX_RUN_DELAY // _HOUR),
        default=RUN_DELAY / _HOUR,
        help="hours after 00:00 UTC at which a day's usage run is live",
    )
    training.add_argument("--window-days", type=positive, default=60, help="length of the usage window in days")
    training.add_argument(
        "--feedback",
        type=path,
        nargs="?",
        metavar="FILE",
        const=Path(FEEDBACK_STREAM),
        help="label the served log with feedback: rows of request_id, product, at; without FILE, the stream in Redis",
    )
    training.add_argument("--log", type=path, help="served log, with --feedback")
    ray_options(training)
    redis_url_option(training)

    skew = add_command(commands, "skew", "recompute the served features from raw events, and compare")
    skew.set_defaults(run=_skew)
    skew.add_argument("--log", type=path, required=True, help="served log")
    _logs(skew, required=True)
    _bundle(skew, "; may be repeated", action="append")
    lag = number(0, MAX_LAG // _MILLISECOND)
    skew.add_argument(
        "--lag-ms", type=lag, default=LAG / _MILLISECOND, help="longest time from an event's arrival to its storage"
    )
    skew.add_argument("--examples", type=int, default=5, help="mismatches to print for each feature")
    skew.add_argument("--sample", type=positive, help="number of requests to compare (default: all)")
    ray_options(skew)

    drift = add_command(commands, "drift", "compare live traffic with the training data")
    drift.set_defaults(run=_drift)
    drift.add_argument("--log", type=path, required=True, help="served log")
    drift.add_argument("--data", type=path, default=CORPUS, help="training data")
    drift.add_argument("--days", type=positive, help="most recent days of the log to compare (default: all)")
    _bundle(drift)
    drift.add_argument("--metrics-file", type=path, help="also write Prometheus text, for a textfile collector")


def _logs(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("--events", type=path, required=required, help="usage log: Parquet under day=YYYY-MM-DD/")
    command.add_argument("--screens", type=path, required=required, help="screen log: Parquet under day=YYYY-MM-DD/")
    partials_option(command)
    store_options(command)


def _bundle(command: argparse.ArgumentParser, more: str = "", **options: Any) -> None:
    text = f"bundle folder or pointer whose preprocessing applies{more} (default: production)"
    command.add_argument("--bundle", type=path, help=text, **options)


def _training_set(arguments: argparse.Namespace) -> None:
    _require_effect(arguments)
    require_extra()
    _require_out(arguments.out)
    if arguments.feedback is not None:
        _feedback_set(arguments)
        return
    _require(arguments, "chats", "events", "screens")
    from features.bundled import bundled_preprocessor
    from features.event_log import day_files
    from features.ray_session import session
    from features.training_set import training_set

    day_files(arguments.events)
    preprocessor = bundled_preprocessor(arguments.bundle)
    logs = (arguments.chats, arguments.events, arguments.screens)
    options: dict[str, Any] = {
        "run_delay": arguments.run_delay_hours * _HOUR,
        "window_days": arguments.window_days,
        "partials": partials_of(arguments),
        "config": store_of(arguments),
    }
    with session(arguments.ray_address, arguments.cpus):
        summary = training_set(*logs, arguments.out, preprocessor, **options)
    _tell_malformed(summary["malformed_screens"])
    tell_missing(summary)
    show(summary)


def _feedback_set(arguments: argparse.Namespace) -> None:
    _require(arguments, "log")
    from features.feedback import Collected, feedback_in_file, feedback_in_stream, feedback_set
    from features.store import connect

    async def from_redis() -> Collected:
        redis = connect(redis_url_of(arguments), 10.0)
        try:
            return await feedback_in_stream(redis)
        finally:
            await redis.aclose()

    stored = arguments.feedback == Path(FEEDBACK_STREAM)
    feedback = asyncio.run(from_redis()) if stored else feedback_in_file(arguments.feedback)
    show(feedback_set(feedback, arguments.log, arguments.out, arguments.chats))


def _skew(arguments: argparse.Namespace) -> None:
    require_extra()
    from features.bundled import bundled_preprocessor
    from features.ray_session import session
    from features.skew import skew

    preprocessors = [bundled_preprocessor(path) for path in arguments.bundle or [None]]
    partials = partials_of(arguments)
    with session(arguments.ray_address, arguments.cpus):
        report = skew(
            arguments.log,
            arguments.events,
            arguments.screens,
            preprocessors,
            lag=arguments.lag_ms * _MILLISECOND,
            examples=arguments.examples,
            sample=arguments.sample,
            partials=partials,
            config=store_of(arguments),
        )
    conclude(report)


def conclude(report: "Report") -> None:
    """Print the report; if there are mismatches, exit with code 1."""
    from features.offline_tables import skew_table

    print("\n".join(skew_table(report)))
    _tell_malformed(report.malformed_screens)
    show(report.summary())
    if report.mismatches:
        sys.exit(1)


def _tell_malformed(screens: int) -> None:
    if screens:
        print(f"notice: the screen log has {screens} malformed rows, which were left out", file=sys.stderr)


def _drift(arguments: argparse.Namespace) -> None:
    require_extra()
    from features.bundled import bundled_preprocessor
    from features.drift import drift
    from features.drift_metrics import write_metrics
    from features.offline_tables import drift_table

    preprocessor = bundled_preprocessor(arguments.bundle)
    found = drift(arguments.log, arguments.data, preprocessor, arguments.days)
    if arguments.metrics_file:
        write_metrics(arguments.metrics_file, found, time.time())
    print("\n".join(drift_table(found)))
    show(found.summary())


def _require_effect(arguments: argparse.Namespace) -> None:
    """Refuse options that would have no effect."""
    idle = _ONLY_WITHOUT_FEEDBACK if arguments.feedback is not None else ("log",)
    reason = "with --feedback, which takes what was served" if arguments.feedback is not None else "without --feedback"
    for name in idle:
        if getattr(arguments, name) != arguments.usual(name):
            raise ValueError(f"training-set: --{name.replace('_', '-')} has no effect {reason}: leave it out")


def _require_out(out: Path) -> None:
    """Refuse, before the work, an output file that could not be written, or that `models train` could not read."""
    from features.drafts import require_replaceable
    from features.rows import reader_of

    try:
        reader_of(out)
        require_replaceable(out)
    except (ValueError, OSError) as error:
        raise ValueError(f"--out: {error}") from None


def _require(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) is None:
            raise ValueError(f"training-set: --{name} is missing")
