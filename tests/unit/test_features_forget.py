"""What is kept of days that have left the log: deleted, and nothing else is."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from features.partials import Partial, Partials
from tests.unit.event_logs import DAY, USES, build, write

LATER = DAY + timedelta(1)


@pytest.fixture
def kept(log: Path, partials: Partials) -> list[Path]:
    """All kinds of files of a day that has left the log, and of another one its malformed rows."""
    build(log, partials)
    shutil.rmtree(log / f"day={DAY}")
    write(log, LATER, USES)
    build(log, partials)
    days = [DAY, DAY - timedelta(1)]
    quarantined = [partials.quarantine(day) for day in days]
    quarantined[0].parent.mkdir()
    drafts = [partials.folder / f".day={DAY}.arrow.{n * 16:032x}" for n in range(2)]
    for file in (*quarantined, *drafts):
        file.touch()
    os.utime(drafts[0], (1, 1))
    return [partials.path(DAY), *quarantined, *drafts]


def test_what_is_kept_of_days_that_have_left_the_log_goes(log: Path, partials: Partials, kept: list[Path]) -> None:
    """But what another process may be writing."""
    assert (partials.forget(log, []), partials.forget(log, [])) == (2, 0)
    assert [file.exists() for file in kept] == [False] * 4 + [True]
    assert partials.path(LATER).exists()


def test_what_the_last_run_has_summed_stays(log: Path, partials: Partials, kept: list[Path]) -> None:
    assert partials.forget(log, [Partial(str(DAY), "", 0, 0, 0, "")]) == 1
    assert [file.exists() for file in kept] == [True, True, False, True, True]


def test_what_is_not_ours_or_cannot_be_deleted_stays(
    log: Path, partials: Partials, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [partials.folder / name for name in ("day=theirs.arrow", f"day={DAY}.csv", f"my-day={DAY}.arrow")]
    folder = partials.path(DAY - timedelta(9))
    folder.mkdir(parents=True)
    for other in others:
        other.touch()
    assert partials.forget(log, []) == 0
    assert all(path.exists() for path in (folder, *others))
    assert capsys.readouterr().err.startswith(f"notice: {folder} is not deleted: ")
