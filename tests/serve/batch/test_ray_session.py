"""How Ray's start fails; a cluster that does not answer."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from ports import free_port
from ray.util import placement_group, remove_placement_group

from features.ray_session import map_items, session
from tests.serve.conftest import ROOT
from tests.serve.polling import until

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


def test_a_ray_that_does_not_start_is_one_line() -> None:
    """Here, since this process has one already."""
    with pytest.raises(ChildProcessError, match=r"^Ray did not start: .*twice.*$"), session(cpus=1):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_one_line_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=f"^no Ray answers at {address}: Connection refused$"), session(address):
        pass


def test_what_is_no_ray_is_told_in_seconds() -> None:
    """A web server, such as the dashboard's, is as silent to Ray's first message."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        reason = f"^what listens at {address} is no Ray cluster$"
        with pytest.raises(ConnectionError, match=reason), session(address):
            pass


def test_a_cluster_without_a_free_cpu_is_waited_for_and_told_of(tmp_path: Path) -> None:
    all_cpus = placement_group([{"CPU": 2}])
    assert all_cpus.wait(300)
    code = f"from features.ray_session import session\nwith session({ray.get_runtime_context().gcs_address!r}): pass"
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=errors) as process,
    ):
        try:
            until((tmp_path / "errors").read_text, lambda text: "notice: no CPU of the cluster is free" in text)
            remove_placement_group(all_cpus)
            assert process.wait(180) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("address", ["head", "head:", "http://head:8265", "head:99999", "ray://:10001"])
def test_what_is_no_address_is_refused_with_those_that_are(address: str) -> None:
    reason = f"^a Ray cluster's address is auto, HOST:PORT or ray://HOST:PORT, not {address}$"
    with pytest.raises(ValueError, match=reason), session(address):
        pass


def test_an_early_error_leaves_no_thread_that_works_with_ray() -> None:
    """Ray ends the whole process, without a word, when one does so after `ray.shutdown`."""
    before = {*threading.enumerate()}
    with pytest.raises(ZeroDivisionError):
        [*map_items(lambda number: 1 / number, range(200), "numbers", progress=False)]
    until(lambda: {*threading.enumerate()} - before, lambda more: not more)
