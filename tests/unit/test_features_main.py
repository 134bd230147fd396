"""`python -m features`: one JSON line at the end, one line of error."""

import json

import pytest
from local_redis import LocalRedis

from features.__main__ import main


@pytest.mark.usefixtures("redis")
def test_seed_says_what_it_wrote(redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--users", "3", "--redis-url", redis_server.url]) == 0
    assert json.loads(capsys.readouterr().out) == {"users": 3, "run": "demo"}


def test_a_store_that_does_not_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--redis-url", "redis://127.0.0.1:1/0"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: Redis does not answer")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("command", ["ingest", "seed"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--redis-url" in capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: python -m features" in capsys.readouterr().err
