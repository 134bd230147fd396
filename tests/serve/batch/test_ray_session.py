"""How Ray's start fails."""

import pytest

from features.ray_session import session

pytestmark = pytest.mark.filterwarnings("ignore:::ray.data.context")


def test_a_ray_that_does_not_start_is_one_line() -> None:
    """Here, since this process has one already."""
    with pytest.raises(ChildProcessError, match=r"^Ray did not start: .*twice.*$"), session(cpus=1):
        pass
