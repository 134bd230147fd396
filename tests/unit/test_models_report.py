"""The report: stored runs become tables between two marks of a page, and nothing else of the page changes."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from models.__main__ import main
from models.bundle import BundleError
from models.report import store, write_report
from models.report_page import BEGIN, END, divide, join, points
from tests.unit.tiny_run import Trained, trained

PAGE = f"# Models\n\nbefore\n{BEGIN}\nold figures\n{END}\nafter\n"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run: Trained = trained(tmp_path_factory.getbasetemp())
    return dict(json.loads((run.run_folder / "run.json").read_text()))


def timed(*names: str, machine: str = "a machine", ms: float = 1.25) -> dict[str, Any]:
    """What the bench tells of these networks."""
    times = {f"batch_{size}": {"p50_ms": ms * size, "p99_ms": 2 * ms * size} for size in (1, 8, 32)}
    return {
        "machine": machine,
        "tokens": 16,
        "networks": {name: times | {"messages_per_second": 800} for name in names},
    }


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "models.md"
    path.write_text(PAGE)
    return path


def rows_of(text: str) -> dict[str, list[str]]:
    """The lines of all tables by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line for line in lines}


def test_page_has_the_figures_between_the_marks_and_stays_as_it_is_around(
    record: dict[str, Any], tmp_path: Path, page: Path
) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("teacher", "int8"))
    assert list(write_report(tmp_path / "runs", page)) == ["tiny"]
    text = page.read_text()
    assert text.startswith(f"# Models\n\nbefore\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old figures" not in text
    assert f"### tiny\n\nVersion `{record['version']}`, 210 rows" in text
    rows = rows_of(text)
    teacher, served, static = rows["teacher, fp32"], rows["**int8 (served)**"], rows["int8, static ranges"]
    assert teacher[1] == f"{record['networks']['teacher']['parameters'] / 1e6:.1f} M"
    assert served[3:6] == ["1.25", "2.50", "800"]
    assert static[3:6] == ["-", "-", "-"]
    clear = record["networks"]["int8"]["sets"]["clear"]
    assert served[6:] == [f"{clear[key]:.3f}" for key in ("accuracy", "ece", "ood_auroc")]
    assert "Timed on a machine, cpu, 16 tokens a message." in text


def test_command_of_a_run_tells_what_differs_from_the_defaults(
    record: dict[str, Any], tmp_path: Path, page: Path
) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    write_report(tmp_path / "runs", page)
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("Version")]
    told = line.split("`")[3]
    assert told.startswith("python -m models train --data chats.jsonl ")
    options = told.split("chats.jsonl ")[1].split(" --")
    assert {option.removeprefix("--") for option in options} == {
        "encoder tiny-encoder", "teachers 2", "teacher-epochs 2", "student-layers 1", "student-epochs 2",
        "recovery-epochs 1",
        "noise 1", "mixtures 1", "heads 2", "neurons 32", "vocabulary 150", "validation 0.25", "test 0.25",
    }  # fmt: skip


def test_command_of_a_run_from_before_there_was_a_choice_of_pooling_tells_it(
    record: dict[str, Any], tmp_path: Path, page: Path
) -> None:
    recipe = {key: value for key, value in record["training"]["recipe"].items() if key != "pooling"}
    old = record | {"training": record["training"] | {"recipe": recipe}}
    store(tmp_path / "runs" / "tiny.json", "tiny", old, "cpu", timed("int8"))
    write_report(tmp_path / "runs", page)
    assert " --pooling mean" in page.read_text()


def test_report_is_the_same_when_written_again(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    for name in ("b", "a"):
        store(tmp_path / "runs" / f"{name}.json", name, record, "cpu", timed("int8"))
    first = write_report(tmp_path / "runs", page), page.read_text()
    assert (write_report(tmp_path / "runs", page), page.read_text()) == first
    assert set(first[0]) == {"a", "b"}
    assert first[1].index("### a\n") < first[1].index("### b\n")


def test_devices_of_a_run_add_up_and_another_run_starts_anew(record: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "runs" / "tiny.json"
    store(target, "tiny", record, "cpu", timed("int8"))
    store(target, "tiny", record, "cuda", timed("teacher", machine="a card"))
    store(target, "tiny", record, "cpu", timed("int8", ms=3.0))
    bench = json.loads(target.read_text())["bench"]
    assert bench == {"cpu": timed("int8", ms=3.0), "cuda": timed("teacher", machine="a card")}
    store(target, "tiny", record | {"version": "another"}, "cuda", timed("int8"))
    assert json.loads(target.read_text())["bench"] == {"cuda": timed("int8")}


def test_points_are_the_timed_networks_that_may_be_served(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    target = tmp_path / "runs" / "tiny.json"
    store(target, "tiny", record, "cpu", timed("teacher", "int8", "static"))
    sets = {name: described["sets"]["clear"]["accuracy"] for name, described in record["networks"].items()}
    wanted = [(name, "tiny", float(f"{sets[name]:.3f}"), 1.25) for name in ("teacher", "int8")]
    assert points(write_report(tmp_path / "runs", page)) == wanted


def test_a_network_without_an_accuracy_is_no_point(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    bare = record | {"networks": {name: kept | {"sets": {}} for name, kept in record["networks"].items()}}
    store(tmp_path / "runs" / "tiny.json", "tiny", bare, "cpu", timed("teacher", "int8"))
    assert points(write_report(tmp_path / "runs", page)) == []


def test_runs_that_only_the_page_knows_stay(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    for name in ("a", "c"):
        store(tmp_path / "runs" / f"{name}.json", name, record, "cpu", timed("int8"))
    before = write_report(tmp_path / "runs", page)
    for name in ("a", "c"):
        (tmp_path / "runs" / f"{name}.json").unlink()
    store(tmp_path / "runs" / "b.json", "b", record, "cpu", timed("int8", ms=9.0))
    after = write_report(tmp_path / "runs", page)
    assert {name: after[name] for name in before} == before
    assert [line for line in page.read_text().splitlines() if line.startswith("### ")] == ["### a", "### b", "### c"]


def test_other_saved_runs_of_the_folder_are_left_out(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    (tmp_path / "runs" / "compare.json").write_text(json.dumps({"loads": []}))
    assert list(write_report(tmp_path / "runs", page)) == ["tiny"]


@pytest.mark.parametrize("content", ["", "{", '{"bench": {}}', '{"bench": 3, "name": "a", "run": []}', "[" * 100_000])
def test_a_damaged_run_is_named_and_the_page_stays(
    record: dict[str, Any], tmp_path: Path, page: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    (tmp_path / "runs" / "broken.json").write_text(content)
    assert main(["report", "--runs", str(tmp_path / "runs"), "--page", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'runs' / 'broken.json'} is damaged (")
    assert page.read_text() == PAGE


@pytest.mark.parametrize("damage", [{"name": None}, {"name": 3}, {"bench": {"cpu": timed("teacher", "int8", ms=0.0)}}])
def test_a_run_of_which_a_value_is_damaged_is_named(
    record: dict[str, Any], tmp_path: Path, page: Path, damage: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "runs" / "tiny.json"
    store(target, "tiny", record, "cpu", timed("teacher", "int8"))
    target.write_text(json.dumps(json.loads(target.read_text()) | damage))
    assert main(["report", "--runs", str(target.parent), "--page", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {target} is damaged (")
    assert page.read_text() == PAGE


def test_lists_and_numbers_beside_the_runs_are_left_out(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    for name, content in (("a", '["bench"]'), ("b", "3")):
        (tmp_path / "runs" / f"{name}.json").write_text(content)
    assert list(write_report(tmp_path / "runs", page)) == ["tiny"]


def test_command_of_a_run_tells_all_files_that_it_read(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    inputs = {
        "data": [{"file": "chats.jsonl", "sha256": "1"}],
        "feedback": [{"file": "may.jsonl", "sha256": "2"}, {"file": "june 1.jsonl", "sha256": "3"}],
        "out_of_scope": [{"file": "strange.csv", "sha256": "4"}],
    }
    told = record | {"training": record["training"] | {"inputs": inputs}}
    store(tmp_path / "runs" / "tiny.json", "tiny", told, "cpu", timed("int8"))
    write_report(tmp_path / "runs", page)
    wanted = "train --data chats.jsonl --feedback may.jsonl 'june 1.jsonl' --out-of-scope strange.csv --encoder"
    assert wanted in page.read_text()


def test_command_of_a_run_from_before_its_files_were_recorded(
    record: dict[str, Any], tmp_path: Path, page: Path
) -> None:
    old = {key: value for key, value in record["training"].items() if key != "inputs"}
    store(tmp_path / "runs" / "tiny.json", "tiny", record | {"training": old}, "cpu", timed("int8"))
    write_report(tmp_path / "runs", page)
    assert "`python -m models train --data chats.jsonl --encoder tiny-encoder " in page.read_text()


def test_calibration_rows_are_those_that_its_error_is_of(record: dict[str, Any], tmp_path: Path, page: Path) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    write_report(tmp_path / "runs", page)
    told = record["training"]["calibration"]
    assert f"\n{told['rows']} calibration rows: ECE {told['ece_before']} before, " in page.read_text()


@pytest.mark.parametrize("name", ["clear", "validation_clear", "holdout_clear", "ambiguous"])
def test_sets_without_a_context_have_no_figure_of_it_whatever_was_stored(
    record: dict[str, Any], tmp_path: Path, page: Path, name: str
) -> None:
    figures = record["served"]["clear"] | {"accuracy_context_only": 0.25}
    store(tmp_path / "runs" / "tiny.json", "tiny", record | {"served": {name: figures}}, "cpu", timed("teacher"))
    write_report(tmp_path / "runs", page)
    (cells,) = (
        line.split(" | ") for line in page.read_text().splitlines() if line.startswith(f"| {name.replace('_', ' ')} ")
    )
    assert cells[4] == ("0.250" if name == "ambiguous" else "-")


def test_the_page_of_this_repository_survives_a_journey() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    before, sections, after = divide(page)
    assert join(before, sections, after) == page
    assert {name for name, *_ in points(sections)} >= {"teacher", "student", "pruned", "int8"}


def test_folder_without_runs_is_refused_with_the_command_that_makes_one(tmp_path: Path, page: Path) -> None:
    with pytest.raises(BundleError, match=r"runs: no stored runs; python -m models bench --run FOLDER --save "):
        write_report(tmp_path / "runs", page)
    assert page.read_text() == PAGE


@pytest.mark.parametrize("text", ["# Models\n", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_page_without_the_marks_in_order_is_refused(record: dict[str, Any], tmp_path: Path, text: str) -> None:
    store(tmp_path / "runs" / "tiny.json", "tiny", record, "cpu", timed("int8"))
    page = tmp_path / "models.md"
    page.write_text(text)
    with pytest.raises(BundleError, match=r"models\.md: lacks the lines"):
        write_report(tmp_path / "runs", page)
    assert page.read_text() == text


def test_a_full_disk_leaves_the_stored_run_and_the_page_as_they_were(
    record: dict[str, Any], tmp_path: Path, page: Path
) -> None:
    target = tmp_path / "runs" / "tiny.json"
    store(target, "tiny", record, "cpu", timed("teacher"))
    stored, before = target.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store(target, "tiny", record, "cuda", timed("teacher"))
        with pytest.raises(OSError, match="too large"):
            write_report(target.parent, page)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (target.read_bytes(), page.read_text()) == (stored, PAGE)
