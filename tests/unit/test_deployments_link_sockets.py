"""Where links may listen: short paths, and folders that are this user's alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployments.link_server import LONGEST_PATH, LinkServer
from deployments.links import Links


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in `tmp_path`, which may be too long for sockets."""
    with TemporaryDirectory(dir="/tmp") as made:
        path = Path(made, "links")
        path.mkdir(mode=0o700)
        yield path


async def echo(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
async def test_a_folder_that_others_may_write_is_refused_by_both_ends(folder: Path, mode: int) -> None:
    await asyncio.to_thread(folder.chmod, mode)
    with pytest.raises(PermissionError, match="open to others"):
        await LinkServer(echo, folder / "a.b.sock").start()
    with pytest.raises(PermissionError, match="open to others"):
        await Links(folder, "a.*.sock").refresh()


async def test_without_a_folder_there_are_no_links(folder: Path) -> None:
    links = Links(folder / "missing", "a.*.sock")
    await links.refresh()
    assert links.pick() is None
    links.close()


@pytest.mark.parametrize("more", [1, 2])
async def test_a_path_too_long_is_refused(folder: Path, more: int) -> None:
    name = "x" * (LONGEST_PATH + more - len(f"{folder}/.sock"))
    with pytest.raises(OSError, match="path too long"):
        await LinkServer(echo, folder / f"{name}.sock").start()


async def test_the_longest_path_works(folder: Path) -> None:
    name = "x" * (LONGEST_PATH - len(f"{folder}/.sock"))
    server, links = LinkServer(echo, folder / f"{name}.sock"), Links(folder, "*.sock")
    await server.start()
    await links.refresh()
    link = links.pick()
    assert link is not None
    assert await link.call([1, 2]) == [1, 2]
    links.close()
    server.close()
