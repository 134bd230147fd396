"""Files that are there as a whole or not at all."""

import os
import time
from pathlib import Path

import pytest

from features.drafts import ABANDONED_S, replacing


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file.json"
    with replacing(target) as draft:
        draft.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [*target.parent.iterdir()] == [target]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as draft:
            draft.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert target.read_text() == "old"
    assert [*tmp_path.iterdir()] == [target]


def test_a_full_disk_is_told_with_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    target = tmp_path / "file.json"

    def fill() -> None:
        with replacing(target) as draft:
            draft.symlink_to("/dev/full")
            draft.write_text("does not fit")

    with pytest.raises(OSError, match=f"No space left on device: '{target}'"):
        fill()
    assert [*tmp_path.iterdir()] == []


def test_drafts_of_killed_writers_go_and_other_files_stay(tmp_path: Path) -> None:
    target = tmp_path / "day=[1].arrow"
    killed, young = (tmp_path / f".{target.name}.{digits * 16}" for digits in ("4f", "5a"))
    others, swap = tmp_path / f".day=[2].arrow.{'4f' * 16}", tmp_path / f".{target.name}.swp"
    long_ago = time.time() - ABANDONED_S - 60
    for left in (killed, others, young, swap):
        left.write_text("half")
    for left in (killed, others, swap):
        os.utime(left, (long_ago, long_ago))
    with replacing(target) as draft:
        draft.write_text("whole")
    assert {*tmp_path.iterdir()} == {target, others, young, swap}


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as draft:
        draft.write_text("new")
    assert (target.read_text(), link.is_symlink(), [*target.parent.iterdir()]) == ("new", True, [target])


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        with pytest.raises(OSError, match="not a regular file"), replacing(target):
            pass
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match="circle"), replacing(tmp_path / "circle"):
        pass
    assert pipe.is_fifo()
