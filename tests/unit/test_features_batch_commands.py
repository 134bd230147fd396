"""`materialize` on the command line, as far as it goes without Ray."""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.__main__ import _parser, main
from features.arguments import number, partials_of
from features.partials import Partials
from features.usage import RUN_KEY
from tests.unit.event_logs import DAY, write

NEWER = "2026-10-03-60d-0123abcd"


class TestOptions:
    @given(st.floats() | st.sampled_from([0.0, 720.0, 720.1, -0.1, 1e300]))
    def test_a_number_is_within_its_bounds(self, value: float) -> None:
        if 0 <= value <= 720:
            assert number(0, 720)(str(value)) == value
        else:
            with pytest.raises(ArgumentTypeError, match=r"^expected a number from 0 to 720, got "):
                number(0, 720)(str(value))

    @pytest.mark.parametrize("text", ["", "x", "1,5"])
    def test_a_text_is_no_number(self, text: str) -> None:
        with pytest.raises(ArgumentTypeError, match=f"expected a number from 0 to 720, got {text}"):
            number(0, 720)(text)

    @pytest.mark.parametrize(
        "command",
        [
            "materialize --events usage --partials kept",
            "simulate --out made --messages-file texts.jsonl",
            "training-set --out out --chats chats --events usage --screens screens --partials kept --bundle b --log l",
            "training-set --out out --feedback file",
            "skew --log served --events usage --screens screens --partials kept --bundle one --bundle other",
            "drift --log served --data corpus --bundle one --metrics-file metrics",
            "bench materialize --events usage",
        ],
    )
    def test_paths_are_the_same_for_workers_elsewhere(self, command: str) -> None:
        values = vars(parsed(command)).values()
        options = [option for value in values for option in (value if isinstance(value, list) else [value])]
        paths = [option for option in options if isinstance(option, Path)]
        assert len(paths) == command.count(" --")
        assert [path for path in paths if not path.is_absolute()] == []

    @pytest.mark.parametrize(
        "command",
        ["materialize --events usage", "training-set --out out.csv", "skew --log l --events usage --screens screens"],
    )
    def test_a_cluster_has_cpus_of_its_own(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            parsed(f"{command} --ray-address auto --cpus 2")
        assert "argument --cpus: not allowed with argument --ray-address" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["events", "screens"])
    @pytest.mark.parametrize("folder", [".", "day=2026-10-01", "day=2026-10-01/kept", "../alias"])
    def test_partials_are_no_part_of_a_log(self, tmp_path: Path, name: str, folder: str) -> None:
        log = tmp_path / name
        log.mkdir()
        (tmp_path / "alias").symlink_to(log)
        arguments = parsed(f"skew --log l --events e --screens s --{name} {log} --partials {log / folder}")
        with pytest.raises(ValueError, match=rf"^--partials: .* is part of the log --{name}: give another folder$"):
            partials_of(arguments)

    @pytest.mark.parametrize("folder", ["usage.partials", "usage/_partials", "."])
    def test_partials_beside_the_days_of_a_log_harm_nothing(self, tmp_path: Path, folder: str) -> None:
        arguments = parsed(f"materialize --events {tmp_path / 'usage'} --partials {tmp_path / folder}")
        kept = partials_of(arguments)
        assert kept is not None
        assert kept.folder == tmp_path / folder

    def test_the_working_directory_has_a_name(self) -> None:
        assert parsed("materialize --events .").events == Path.cwd()


def parsed(command: str) -> Namespace:
    return _parser().parse_args(command.split())


async def test_an_older_run_is_refused_before_the_work(
    tmp_path: Path, redis: Redis, redis_server: LocalRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "usage", DAY, [("u1", "a")])
    await redis.set(RUN_KEY, NEWER)
    arguments = ["--events", str(tmp_path / "usage"), "--as-of", "2026-10-02", "--redis-url", redis_server.url]
    assert main(["materialize", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: readers see {NEWER}, ")
    assert output.err.count("\n") == 1
    assert await redis.keys("*") == [RUN_KEY]
    assert not Partials(tmp_path / "usage.partials").folder.exists()
