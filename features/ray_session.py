"""Ray for batch work: a session of this process's own, or a cluster; and independent items mapped over it."""

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
"""A task has one CPU; polars would take them all."""
_BLOCKS_PER_CPU = 2
_BLOCK = 50 * 2**20
_RETRIES = 3
"""Of items whose worker died; Ray Data would try for ever."""


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster at an address, or start a Ray of this process's own, which ends with it.

    Workers are warm from the beginning: their start takes seconds, and would count as work.

    Args:
        address: `auto` for the cluster that runs on this machine, `host:port`, or `ray://host:port` of its client port.
        cpus: of a Ray of this process's own; all by default.

    Raises:
        ValueError: the address is none of these.
        ConnectionError: no cluster answers there.
        ChildProcessError: Ray did not start, as on a machine that is too busy.
        KeyboardInterrupt: SIGTERM while Ray starts; from then on it does again what it did before.
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
        raise ChildProcessError(f"Ray did not start: {[*str(error).splitlines(), ''][0]}") from error
    if address and ray.available_resources().get("CPU", 0) < 1:  # type: ignore[no-untyped-call]
        print("notice: no CPU of the cluster is free, and each task takes one: waiting for it", file=sys.stderr)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        list(map_items(_warm, range(_cpus()), "workers", progress=False))
        yield
    finally:
        ray.shutdown()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # Ray does not wait for its processes, which Python would complain of some time later


def _start(address: str | None, cpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address, cpus)
    finally:
        if on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler ends this process at once, with a stack trace


def _connect(address: str | None, cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        require_answer(address)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Ray Client connection timed out")
            ray.init(address, runtime_env={"env_vars": _ONE_THREAD}, **quiet)
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.update(_ONE_THREAD)  # workers inherit it, and so need no environment of their own
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=256 * 2**20, **quiet)


def map_items(
    kernel: Callable[[Any], Any], items: Sequence[Any], unit: str, progress: bool = True, *, size: int = 0
) -> Iterator[Any]:
    """Ray Data over independent items: results as they come, with a progress bar.

    Args:
        kernel: runs in a worker. What it raises is raised here, as the worker's own exception type.
        size: bytes behind all items, about. The more, the more blocks: one costs 40 ms, and the bar moves with each.

    Raises:
        ChildProcessError: workers died again and again, or cannot import the code.
    """
    if not items:
        return
    blocks = min(len(items), max(_BLOCKS_PER_CPU * _cpus(), size // _BLOCK))
    through_client = ray.util.client.ray.is_connected()  # type: ignore[no-untyped-call]
    answers = (_answers_of_a_node if through_client else _answers)(kernel, items, blocks)
    try:
        with closing(answers):  # now: `ray.shutdown` while Ray Data works ends this process, without a word
            for row in tqdm(answers, total=len(items), unit=unit, disable=None if progress else True):
                if row.get("error") is not None:
                    raise row["error"]
                yield row["answer"]
    except ray.exceptions.RayError as error:
        raise ChildProcessError(f"Ray's workers failed at these {unit}: {str(error).splitlines()[0]}") from error


def _answers(kernel: Callable[[Any], Any], items: Sequence[Any], blocks: int) -> Generator[Row, None, None]:
    """Each item's `answer`, or the `error` that the kernel raised."""

    def answer(row: Row) -> Row:
        try:
            return {"answer": kernel(row["item"])}
        except Exception as error:
            return {"answer": None, "error": error}

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.op_resource_reservation_enabled = False  # with it, all workers but one wait a second for their budget
    rows = ray.data.from_items([{"item": item} for item in items], override_num_blocks=blocks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # this Ray has no other way to say it
        answers = rows.map(answer, num_cpus=1, max_retries=_RETRIES)
    for bundle in answers.iter_internal_ref_bundles():  # iter_rows leaves threads behind where its reader stops early
        for block in bundle.blocks:
            yield from BlockAccessor.for_block(ray.get(block.ref)).iter_rows(public_row_format=True)


def _answers_of_a_node(kernel: Callable[[Any], Any], items: Sequence[Any], blocks: int) -> Generator[Row, None, None]:
    """The same through a client of the cluster, where Ray Data does not work: a node runs it, and tells at the end."""
    collect = ray.remote(num_cpus=0, max_retries=0)(lambda *of: list(_answers(*of)))
    yield from ray.get(collect.remote(kernel, items, blocks))


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]


def _warm(_: int) -> None:
    """Import what every kernel needs."""
    importlib.import_module("pyarrow.parquet")
    importlib.import_module("polars")
