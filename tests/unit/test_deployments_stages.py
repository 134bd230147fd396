"""A running stage keeps its settings when it is told nonsense, whatever YAML makes of it."""

import logging
from typing import Any

import pytest

from deployments.cache import CacheConfig
from deployments.stages import refusing


@pytest.mark.parametrize("settings", [{"no_such_key": 1}, {1: 2}, {True: "x"}])
def test_what_is_refused_is_said_and_the_replica_lives(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), refusing(serves=True):
        CacheConfig(**settings)
    assert "user_config is refused" in caplog.text


def test_a_replica_that_starts_does_not_start_with_nonsense() -> None:
    with pytest.raises(ValueError, match="nonsense"), refusing(serves=False):
        raise ValueError("nonsense")
