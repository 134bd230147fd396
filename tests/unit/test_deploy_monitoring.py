"""Alerts and dashboard speak of metrics that exist, and lead to pages that do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.drift import Drift
from features.drift_metrics import write_metrics
from tests.unit.exported_metrics import ROOT, exported

DEPLOY = ROOT / "deploy"
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "switchboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
OTHERS = {
    "up",
    "ray_serve_deployment_status",
    "ray_serve_deployment_replica_healthy",
    "ray_serve_autoscaling_target_replicas",
    "kube_cronjob_status_last_successful_time",
}
"""Metrics of Prometheus, Ray Serve 2.60 and kube-state-metrics that are used here."""
NAME = re.compile(r"\b(?:ray|switchboard|kube)_\w+|\bup\b")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    file = tmp_path_factory.mktemp("drift") / "drift.prom"
    rates = {"with_usage_rate": 0.5, "training_with_usage_rate": 0.5}
    write_metrics(file, Drift(1, "", "", 1, [], 0.1, 0.1, 0.1, 0.1, rates, {}, 0), 1.0)
    drift = set(re.findall(r"^# TYPE (\w+)", file.read_text(), re.MULTILINE))
    return drift | OTHERS | {f"ray_switchboard_{name}" for name in exported()}


def names(expression: str) -> set[str]:
    """Metrics of a PromQL expression: what stands before its selectors, not in them."""
    return set(NAME.findall(re.sub(r"\{.*?\}|\(\w+(?:, \w+)*\) \(", " ", expression)))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as they are made from them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_names_are_found_in_expressions() -> None:
    assert names('sum by (job) (rate(ray_a_total{up="kube_b"}[5m])) / up > 1') == {"ray_a_total", "up"}


@pytest.mark.parametrize("expression", [rule["expr"] for rule in ALERTS] + QUERIES)
def test_every_metric_exists(expression: str, known: set[str]) -> None:
    assert names(expression)
    assert names(expression) - known == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    page, _, anchor = told["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / page)


def test_every_alert_has_a_unit_test() -> None:
    assert len(ALERTS) == len({rule["alert"] for rule in ALERTS})
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    samples = [sample for test in tests for case in test["promql_expr_test"] for sample in case["exp_samples"]]
    assert {rule["alert"] for rule in ALERTS} == {re.findall(r'"(\w+)"', sample["labels"])[0] for sample in samples}


def test_a_critical_alert_does_not_wait_long() -> None:
    waits = {rule["alert"]: int(rule["for"].removesuffix("m")) for rule in ALERTS if "for" in rule}
    assert {
        rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == "critical" and waits[rule["alert"]] > 5
    } == set()


def test_the_dashboard_takes_any_data_source() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job"]
    sources = [part["datasource"]["uid"] for panel in PANELS for part in [panel, *panel["targets"]]]
    assert set(sources) == {"${datasource}"}
    assert "__inputs" not in DASHBOARD


def test_panels_lie_side_by_side() -> None:
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_prometheus_loads_the_rules_and_scrapes_what_they_name() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert configuration["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"] for job in configuration["scrape_configs"]}
    assert {job for rule in ALERTS for job in re.findall(r'job="(\w+)"', rule["expr"])} <= jobs
