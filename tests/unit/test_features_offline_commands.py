"""`training-set`, `skew` and `drift` on the command line: a JSON line at the end, one line of error, exit codes."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from local_redis import LocalRedis
from redis.asyncio import Redis

from features.__main__ import main
from features.bundled import bundled_preprocessor
from features.labelled import read_labelled
from features.offline_commands import conclude
from features.schema import FEEDBACK_STREAM, UserFeatures
from features.skew import FEATURES, Report, skew
from tests.unit.offline_world import NOON
from tests.unit.served_world import served_row, write_log

PREPROCESSOR = bundled_preprocessor()
Output = pytest.CaptureFixture[str]


ANSWERED = served_row("r1", "ana", UserFeatures(("home",)), "hi", PREPROCESSOR)


def summary(output: str) -> dict[str, Any]:
    return dict(json.loads(output.splitlines()[-1]))


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


class TestTrainingSet:
    @pytest.mark.parametrize("from_redis", [True, False])
    async def test_from_feedback(
        self, tmp_path: Path, redis: Redis, redis_server: LocalRedis, capsys: Output, from_redis: bool
    ) -> None:
        entry = {"request_id": "r1", "product": "security", "at": NOON.isoformat()}
        fields: dict[Any, Any] = {**entry}
        await redis.xadd(FEEDBACK_STREAM, fields)
        (tmp_path / "feedback.jsonl").write_text(json.dumps(entry))
        source = ["--redis-url", redis_server.url] if from_redis else [str(tmp_path / "feedback.jsonl")]
        out = tmp_path / "out.jsonl"
        log = write_log(tmp_path / "served", [ANSWERED])
        arguments = ["training-set", "--log", str(log), "--out", str(out), "--feedback", *source]
        assert await asyncio.to_thread(main, arguments) == 0
        assert summary(capsys.readouterr().out)["rows"] == 1
        assert json.loads(out.read_text())["product"] == "security"

    @pytest.mark.parametrize(
        ("arguments", "missing"), [(["--feedback"], "--log"), (["--chats", "c.jsonl"], "--events"), ([], "--chats")]
    )
    def test_says_what_is_missing(self, arguments: list[str], missing: str, capsys: Output) -> None:
        assert run("training-set", "--out", "out.jsonl", *arguments) == 2
        assert capsys.readouterr().err == f"error: training-set: {missing} is missing\n"

    @pytest.mark.parametrize(
        "option",
        ["--events=e", "--screens=s", "--partials=p", "--bundle=b", "--run-delay-hours=4", "--window-days=3",
         "--max-screens=4", "--screen-window-s=60", "--ray-address=auto", "--cpus=1"],
    )  # fmt: skip
    def test_options_without_effect_on_feedback_are_refused(self, option: str, capsys: Output) -> None:
        assert run("training-set", "--out", "out.jsonl", "--feedback", "f.jsonl", "--log", "served", option) == 2
        reason = f"{option.partition('=')[0]} has no effect with --feedback, which takes what was served: leave it out"
        assert capsys.readouterr().err == f"error: training-set: {reason}\n"

    def test_a_served_log_without_feedback_is_refused(self, capsys: Output) -> None:
        assert run("training-set", "--out", "out.jsonl", "--log", "served", "--chats", "c.jsonl") == 2
        assert capsys.readouterr().err == "error: training-set: --log has no effect without --feedback: leave it out\n"

    @pytest.mark.parametrize("out", ["rows.json", "rows", "rows.csv.gz"])
    def test_names_that_train_does_not_read_are_refused(self, out: str, capsys: Output) -> None:
        assert run("training-set", "--out", out, "--feedback") == 2
        assert (
            capsys.readouterr().err == f"error: --out: {Path.cwd() / out}: expected a file that ends in .csv, .jsonl\n"
        )

    def test_a_folder_is_refused_before_the_work(self, tmp_path: Path, capsys: Output) -> None:
        out = tmp_path / "rows.csv"
        out.mkdir()
        assert run("training-set", "--out", out, "--feedback") == 2
        assert capsys.readouterr().err == f"error: --out: {out}: exists and is not a regular file\n"

    def test_a_name_in_capitals_is_what_train_takes_it_for(self, tmp_path: Path) -> None:
        feedback, out = tmp_path / "feedback.jsonl", tmp_path / "ROWS.CSV"
        feedback.write_text(json.dumps({"request_id": "r1", "product": "security", "at": NOON.isoformat()}))
        log = write_log(tmp_path / "served", [ANSWERED])
        assert run("training-set", "--log", log, "--out", out, "--feedback", feedback) == 0
        assert [example.product for _, example in read_labelled(out)] == ["security"]

    @pytest.mark.parametrize("hours", ["-1", "nan", "inf", "721", "1e8", "soon"])
    def test_a_run_delay_is_from_none_to_a_month(self, hours: str, capsys: Output) -> None:
        with pytest.raises(SystemExit, match="2"):
            run("training-set", "--out", "out.jsonl", f"--run-delay-hours={hours}")
        reason = f"argument --run-delay-hours: expected a number from 0 to 720, got {hours}\n"
        assert capsys.readouterr().err.endswith(reason)


class TestSkew:
    @pytest.mark.parametrize("lag_ms", ["-1", "nan", "1e300", "86400001"])
    def test_a_lag_is_from_none_to_a_day(self, lag_ms: str, capsys: Output) -> None:
        with pytest.raises(SystemExit, match="2"):
            run("skew", f"--lag-ms={lag_ms}")
        reason = f"argument --lag-ms: expected a number from 0 to 86400000, got {lag_ms}\n"
        assert capsys.readouterr().err.endswith(reason)

    @pytest.mark.parametrize("lag", [timedelta(microseconds=-1), timedelta(days=1, microseconds=1)])
    def test_no_other_lag_is_compared_with(self, tmp_path: Path, lag: timedelta) -> None:
        with pytest.raises(ValueError, match=r"lag: .* is not between 0 and 1 day"):
            skew(tmp_path, tmp_path, tmp_path, [PREPROCESSOR], lag=lag)

    def test_says_how_many_screens_were_malformed(self, capsys: Output) -> None:
        conclude(Report(requests=8, degraded=0, compared=8, malformed_screens=3))
        output = capsys.readouterr()
        assert output.err == "notice: the screen log has 3 malformed rows, which were left out\n"
        assert summary(output.out)["malformed_screens"] == 3

    def test_says_whose_usage_was_not_compared(self, capsys: Output) -> None:
        conclude(Report(requests=8, degraded=1, compared=7, unverifiable_usage=7))
        told = capsys.readouterr().out.splitlines()[-2]
        assert told.startswith("usage not compared for 7 of 7 requests: they read a run that ")

    def test_ends_well_where_nothing_differs(self, capsys: Output) -> None:
        conclude(Report(requests=8, degraded=1, compared=7, changed_runs=["2026-03-02-60d-01234567"]))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1:] for line in lines[1:-2]] == [["0", "0.00%"]] * len(FEATURES)
        assert lines[-2].startswith("usage run 2026-03-02-60d-01234567: made of other events")
        counts = summary(lines[-1])
        assert (counts["requests"], counts["compared"], counts["mismatches"]) == (8, 7, 0)


class TestDrift:
    def test_from_the_corpus_with_metrics(self, tmp_path: Path, capsys: Output) -> None:
        log, metrics = write_log(tmp_path / "served", [ANSWERED]), tmp_path / "drift.prom"
        assert run("drift", "--log", log, "--metrics-file", metrics) == 0
        output = capsys.readouterr().out
        assert output.splitlines()[0].split() == ["feature", "PSI", "reading", "training", "served"]
        assert summary(output)["requests"] == 1
        assert "switchboard_drift_requests 1.0\n" in metrics.read_text()

    def test_without_a_log_is_one_line_of_error(self, tmp_path: Path, capsys: Output) -> None:
        assert run("drift", "--log", tmp_path / "nowhere") == 2
        assert capsys.readouterr().err == f"error: {tmp_path / 'nowhere'}: no such folder\n"
