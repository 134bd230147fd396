"""Drift: a log like the training data is stable, a planted shift is named, and the figures are counted right."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.bundled import bundled_preprocessor
from features.drift import Drift, drift
from features.drift_metrics import label_of, write_metrics
from features.offline_tables import drift_table
from features.schema import UserFeatures
from tests.unit.offline_world import NOON
from tests.unit.served_world import Row, served_row, write_log

PREPROCESSOR = bundled_preprocessor()
WORDS = ["my", "card", "was", "declined", "again", "at", "the", "shop", "please", "help", "me", "with", "it", "today"]
SCREENS = ["home", "card_limit", "loan_simulator", "security_pin"]
LABELS = ["loans", "security", "transfers"]


def sample(seed: int, **fixed: Any) -> dict[str, Any]:
    """A labelled message with its context."""
    rng = random.Random(seed)
    usage = {product: min(rng.randint(1, 20), 12) for product in LABELS if rng.random() < 0.7}
    drawn = {
        "text": " ".join(rng.choices(WORDS, k=rng.randint(2, 20))),
        "product": rng.choice(LABELS),
        "recent_screens": rng.choices(SCREENS, k=rng.randint(0, 5)),
        "product_usage_60d": usage,
    }
    return drawn | fixed


def served(number: int, **fixed: Any) -> Row:
    """The message, answered with its label."""
    row = sample(10_000 + number, **fixed)
    features = UserFeatures(tuple(row["recent_screens"]), row["product_usage_60d"])
    return served_row(f"r{number}", "ana", features, row["text"], PREPROCESSOR) | {"product": row["product"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "training.jsonl"
    strange = [sample(i) | {"product": "oos", "recent_screens": [], "product_usage_60d": {}} for i in range(50)]
    rows = [sample(i, text="hi") if i == 0 else sample(i) for i in range(2000)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows + strange))
    return file


Compare = Callable[..., Drift]


@pytest.fixture
def compare(tmp_path: Path, data: Path) -> Compare:
    """Drift of rows that were served."""

    def run(rows: list[Row], last_days: int | None = None) -> Drift:
        return drift(write_log(tmp_path / "log", rows), data, PREPROCESSOR, last_days)

    return run


def readings(found: Drift) -> dict[str, str]:
    return {shift.feature: shift.reading for shift in found.shifts}


class TestShifts:
    features = (
        "tokens",
        "product",
        "recent_screens",
        "product_usage_60d:loans",
        "product_usage_60d:security",
        "product_usage_60d:transfers",
        "with_screens",
        "with_usage",
    )

    def test_a_log_like_the_training_data_is_stable(self, compare: Compare) -> None:
        found = compare([served(i) for i in range(1500)])
        assert readings(found) == dict.fromkeys(self.features, "stable")
        assert found.summary()["shifted"] == []
        assert set(found.out_of_range.values()) == {0}
        assert (found.requests, found.training_rows) == (1500, 2050)

    @pytest.mark.parametrize(
        ("fixed", "shifted"),
        [
            ({"text": "hi there"}, ["tokens"]),
            ({"product": "loans"}, ["product"]),
            ({"recent_screens": ["security_pin", "security_pin"]}, ["recent_screens"]),
            ({"product_usage_60d": {"loans": 12, "security": 6, "transfers": 3}}, list(features[3:6])),
            ({"recent_screens": []}, ["with_screens"]),
            ({"product_usage_60d": {}}, ["with_usage"]),
        ],
    )
    def test_a_planted_one_is_named(self, compare: Compare, fixed: dict[str, Any], shifted: list[str]) -> None:
        found = compare([served(i, **(fixed if i % 2 else {})) for i in range(1500)])
        assert found.summary()["shifted"] == shifted

    def test_of_few_rows_are_not_called_shifts(self, compare: Compare) -> None:
        found = compare([served(i) for i in range(12)])
        assert {"too few rows"} <= set(readings(found).values()) <= {"too few rows", "stable"}

    def test_of_no_rows_are_told(self, compare: Compare) -> None:
        found = compare([served(i, recent_screens=[], product_usage_60d={}) for i in range(300)])
        assert {name for name, said in readings(found).items() if said == "no rows"} == set(self.features[2:6])
        assert found.summary()["psi"]["recent_screens"] is None

    @pytest.mark.parametrize(
        ("fixed", "missing"),
        [
            ({"recent_screens": []}, ["with_screens"]),
            ({"product_usage_60d": []}, ["with_usage"]),
            ({"degraded": ["recent_screens", "product_usage_60d"]}, ["with_screens", "with_usage"]),
        ],
    )
    def test_a_feature_that_no_request_has_any_more_is_a_large_one(
        self, compare: Compare, tmp_path: Path, fixed: Row, missing: list[str]
    ) -> None:
        found = compare([served(i) | fixed for i in range(1500)])
        summary = found.summary()
        assert summary["shifted"] == missing
        write_metrics(tmp_path / "drift.prom", found, 0)
        table, metrics = "\n".join(drift_table(found)), (tmp_path / "drift.prom").read_text()
        for name in missing:
            assert readings(found)[name] == "large shift"
            assert (summary[f"{name}_rate"], summary[f"training_{name}_rate"] > 0.7) == (0, True)
            assert re.search(rf"^{name} .*large shift +2,050 +1,500$", table, re.MULTILINE)
            assert f"{name.replace('_', ' ')} rate ".ljust(40) + "   0.00%" in table
            assert float(metrics.partition(f'switchboard_drift_psi{{feature="{name}"}} ')[2].split()[0]) > 1
            assert f"switchboard_drift_{name}_rate 0.0\n" in metrics

    def test_a_feature_that_training_never_had_is_not_compared(self, tmp_path: Path) -> None:
        data = tmp_path / "data.csv"
        data.write_text("text,category\nmy card was declined,security\n")
        found = drift(write_log(tmp_path / "log", [served(i) for i in range(300)]), data, PREPROCESSOR)
        assert {readings(found)[name] for name in ("with_screens", "with_usage")} == {"no rows"}
        assert found.out_of_range["recent_screens"] > 200

    def test_screens_are_compared_as_the_model_sees_them(self, compare: Compare) -> None:
        rows = [served(i) for i in range(1500)]
        found = compare([row | {"recent_screens": [f" {s.upper()}" for s in row["recent_screens"]]} for row in rows])
        assert readings(found)["recent_screens"] == "stable"
        assert found.out_of_range["recent_screens"] == 0


class TestFigures:
    def test_rates(self, compare: Compare) -> None:
        down = {"degraded": ["recent_screens"], "recent_screens": ["strange"], "product_usage_60d": []}
        other = {"preprocessing": "0" * 16, "tokens": 400, "unknown_tokens": 400}
        rows = [served(i) | {"tokens": 10, "unknown_tokens": i % 2} for i in range(100)]
        rows[:20] = [row | {"action": "general_queue"} for row in rows[:20]]
        rows[20:25] = [row | down for row in rows[20:25]]
        rows[25:29] = [row | other for row in rows[25:29]]
        found = compare(rows)
        assert found.abstention_rate == 0.2
        assert found.degraded_rate == 0.05
        assert found.other_preprocessing == 4
        assert found.unknown_token_rate == 48 / 960
        assert found.training_unknown_token_rate == 0
        assert set(found.out_of_range.values()) == {0}

    def test_out_of_range(self, compare: Compare) -> None:
        rows = [served(i) for i in range(40)]
        rows[0] = served(0, text="")
        rows[1:3] = [served(1, text=" ".join(WORDS * 3))] * 2
        rows[3] = served(3, recent_screens=["home", "new_screen", "newer_screen"])
        rows[4] = served(4, product_usage_60d={"loans": 12, "security": 13})
        rows[5] = served(5, product_usage_60d={"unheard_of": 1})
        rows[6] = served(6, product="unheard_of")
        assert compare(rows).out_of_range == {"tokens": 3, "product": 1, "recent_screens": 1, "product_usage_60d": 2}

    def test_the_last_days_only(self, compare: Compare) -> None:
        rows = [served(i) | {"answered_at": NOON.replace(day=1 + i % 4)} for i in range(40)]
        found = compare(rows, 2)
        assert (found.requests, found.first, found.last) == (20, "2026-03-03", "2026-03-04")

    def test_the_table_has_every_feature_and_rate(self, compare: Compare) -> None:
        lines = list(drift_table(compare([served(i) for i in range(300)])))
        assert lines[0].split() == ["feature", "PSI", "reading", "training", "served"]
        assert lines[1].split()[0] == "tokens"
        assert lines[1].split()[2:] == ["stable", "2,050", "300"]
        assert any(re.fullmatch(r"abstention rate +0\.00%", line) for line in lines)
        assert len({len(line) for line in lines[:7]}) == 1


class TestMetrics:
    def write(self, path: Path, found: Drift) -> list[str]:
        write_metrics(path, found, 1_700_000_000.5)
        return path.read_text().splitlines()

    def test_are_prometheus_text(self, compare: Compare, tmp_path: Path) -> None:
        found = compare([served(i, product='a"b\\c') for i in range(300)])
        lines = self.write(tmp_path / "metrics" / "drift.prom", found)
        assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["drift.prom"]
        samples = [line for line in lines if not line.startswith("#")]
        assert all(re.fullmatch(r'switchboard_drift_[a-z_]+(\{feature="[^"]+"\})? \S+', line) for line in samples)
        values = dict(line.rsplit(" ", 1) for line in samples)
        assert values["switchboard_drift_requests"] == "300.0"
        assert values["switchboard_drift_last_run_timestamp_seconds"] == "1700000000.5"
        assert values['switchboard_drift_out_of_range_requests{feature="product"}'] == "300.0"
        for shift in found.shifts:
            assert values[f'switchboard_drift_psi{{feature="{shift.feature}"}}'] == repr(shift.psi)
        for name, rate in found.rates.items():
            assert values[f"switchboard_drift_{name}"] == repr(rate)
        told = {line.split()[2] for line in lines if line.startswith("# TYPE") and line.endswith(" gauge")}
        assert told == {re.split(r"[{ ]", line)[0] for line in samples}

    @given(st.text(max_size=8))
    def test_labels_are_escaped(self, name: str) -> None:
        label = label_of("feature", name)
        assert "\n" not in label
        assert re.fullmatch(r'\{feature="(?:[^"\\]|\\["\\n])*"\}', label, re.DOTALL)
        inner = label[len('{feature="') : -2]
        assert re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], inner) == name
