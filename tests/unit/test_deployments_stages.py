"""A running stage keeps its settings when it is told nonsense; one that cannot be built says only why."""

import gc
import logging
from typing import Any

import pytest

from deployments.cache import CacheConfig
from deployments.link_server import Call
from deployments.stages import Stage, refusing


@pytest.mark.parametrize("settings", [{"no_such_key": 1}, {1: 2}, {True: "x"}])
def test_what_is_refused_is_said_and_the_replica_lives(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), refusing(serves=True):
        CacheConfig(**settings)
    assert "user_config is refused" in caplog.text


def test_a_replica_that_starts_does_not_start_with_nonsense() -> None:
    with pytest.raises(ValueError, match="nonsense"), refusing(serves=False):
        raise ValueError("nonsense")


def test_a_stage_that_cannot_be_built_ends_without_a_second_error() -> None:
    def build() -> Call:
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        Stage(build, linked=True)
    gc.collect()  # of a second error, raised while the stage is deleted, pytest would make a warning
