"""Ray for batch work: a session on a local Ray or a cluster, and a function mapped over independent items."""

import gc
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import ray
import ray.data
import ray.util.client
from ray.data.block import BlockAccessor
from tqdm import tqdm

from features.ray_address import THIS_MACHINE, require_answer

Row = dict[str, Any]
_ONE_THREAD = {"POLARS_MAX_THREADS": "1"}
"""Each task has one CPU; polars would use all."""
_BLOCKS_PER_CPU = 2
_BYTES_PER_BLOCK = 50 * 2**20
_RETRIES = 3
"""Retries of items whose worker died; Ray Data would try for ever."""


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster at an address, or start a local Ray; disconnect or stop it in the end.

    Workers are started and warmed up first, so that their start, which takes seconds, does not count as work.

    Args:
        address: `auto` for the cluster that runs on this machine, `host:port`, or `ray://host:port` of its client port.
        cpus: of a local Ray; default: all.

    Raises:
        ValueError: the address is none of these.
        ConnectionError: no cluster answers there.
        ChildProcessError: Ray did not start, for example on a machine that is too busy.
        KeyboardInterrupt: SIGTERM arrived while Ray started. Afterwards the earlier handler of SIGTERM is back.
    """
    try:
        _start(address, cpus)
    except ConnectionError as error:
        raise ConnectionError("no Ray cluster runs on this machine" if address == THIS_MACHINE else error) from None
    except SystemExit as end:
        if end.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    except (OSError, ValueError):
        raise
    except Exception as error:  # Ray has no narrower type for it
        reason = str(error).partition("\n")[0]
        raise ChildProcessError(f"Ray did not start: {reason}") from error
    try:
        if address and ray.available_resources().get("CPU", 0) < 1:  # type: ignore[no-untyped-call]
            print("notice: no CPU of the cluster is free, and each task takes one: waiting for it", file=sys.stderr)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        list(map_items(_warm, range(_cpus()), "workers", progress=False))
        yield
    finally:
        ray.shutdown()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # Ray does not wait for its child processes: Python would warn of each later


def _start(address: str | None, cpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address, cpus)
    finally:
        if on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler ends the process with a stack trace


def _connect(address: str | None, cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        require_answer(address)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Ray Client connection timed out")
            ray.init(address, runtime_env={"env_vars": _ONE_THREAD}, **quiet)
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.update(_ONE_THREAD)  # inherited by workers, so they need no runtime_env
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=256 * 2**20, **quiet)


def map_items(
    kernel: Callable[[Any], Any], items: Sequence[Any], unit: str, progress: bool = True, *, size: int = 0
) -> Iterator[Any]:
    """Map a function over independent items with Ray Data: results in the order of completion, and a progress bar.

    Args:
        kernel: runs in a worker; its exceptions are raised here with their own types.
        unit: what the progress bar counts, and what an error names.
        size: bytes that all items stand for, about; more bytes give more blocks. A block costs 40 ms, and the bar moves
            block by block.

    Raises:
        ChildProcessError: workers died again and again, or cannot import the code.
    """
    if not items:
        return
    blocks = min(len(items), max(_BLOCKS_PER_CPU * _cpus(), size // _BYTES_PER_BLOCK))
    through_client = ray.util.client.ray.is_connected()  # type: ignore[no-untyped-call]
    answers = (_answers_of_a_node if through_client else _answers)(kernel, items, blocks)
    try:
        with closing(answers):  # at once: `ray.shutdown` while Ray Data works ends this process silently
            for row in tqdm(answers, total=len(items), unit=unit, disable=None if progress else True):
                if row.get("error") is not None:
                    raise row["error"]
                yield row["answer"]
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        reason = str(cause).partition("\n")[0]
        raise ChildProcessError(f"Ray's workers failed at these {unit}: {reason}") from error


def _answers(kernel: Callable[[Any], Any], items: Sequence[Any], blocks: int) -> Generator[Row, None, None]:
    """For each item a row with the kernel's `answer`, or the `error` that it raised."""

    def answer(row: Row) -> Row:
        try:
            return {"answer": kernel(row["item"])}
        except Exception as error:
            return {"answer": None, "error": error}

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.op_resource_reservation_enabled = False  # else all workers but one wait a second for a budget
    rows = ray.data.from_items([{"item": item} for item in items], override_num_blocks=blocks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # the only way to set max_retries
        answers = rows.map(answer, num_cpus=1, max_retries=_RETRIES)
    for bundle in answers.iter_internal_ref_bundles():  # iter_rows leaks threads if its reader stops early
        for block in bundle.blocks:
            yield from BlockAccessor.for_block(ray.get(block.ref)).iter_rows(public_row_format=True)


def _answers_of_a_node(kernel: Callable[[Any], Any], items: Sequence[Any], blocks: int) -> Generator[Row, None, None]:
    """`_answers` through Ray Client, where Ray Data does not work: a task runs it and returns all rows at the end."""
    collect = ray.remote(num_cpus=0, max_retries=0)(lambda *of: list(_answers(*of)))
    yield from ray.get(collect.remote(kernel, items, blocks))


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]


def _warm(_: int) -> None:
    """Import what kernels need."""
    importlib.import_module("pyarrow.parquet")
    importlib.import_module("polars")
