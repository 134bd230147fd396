"""What the code offers is in the documentation."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.batching import NaturalBatcher
from deployments.cache import PredictionCache
from deployments.flow import Answer
from deployments.gather import FeatureGatherer
from deployments.protocol import LogitBatch, Query, TokenBatch
from deployments.served import ServedLogConfig
from deployments.served_log import ServedLog
from deployments.served_rows import rows
from features.store import FeatureStore, connect
from features.stream import ScreenIngester
from tests.unit.plain_graph import Service

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


async def _answer(queries: Sequence[Query]) -> list[Answer]:
    raise NotImplementedError


async def _classify(batch: TokenBatch) -> LogitBatch:
    raise NotImplementedError


async def test_every_metric_is_explained(at: Service, tmp_path: Path) -> None:
    redis = connect("redis://127.0.0.1:1", 1)
    store = FeatureStore(redis)
    parts = (
        NaturalBatcher(_answer),
        PredictionCache(_classify),
        FeatureGatherer(store, 1),
        ScreenIngester(redis, store),
        at.ingress,
    )
    names = {name for part in parts for name in (*part.counts(), *getattr(part, "levels", dict)())}
    served = ServedLog(ServedLogConfig(folder=str(tmp_path)), rows)
    served.close()
    names |= {*served.counts(), *served.levels()}
    page = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"ray_switchboard_(\w+)", page))
    short = set(re.findall(r"…_(\w+)", page))
    missing = {name for name in names if name not in named and not any(name.endswith(end) for end in short)}
    assert not missing


@pytest.mark.parametrize("package", ["models", "features"])
def test_every_command_is_in_the_changelog(package: str) -> None:
    source = (ROOT / package / "__main__.py").read_text()
    commands = set(re.findall(r'add_parser\(\s*"([a-z-]+)"', source))
    told = re.search(rf"python -m {package} \{{([a-z,-]+)\}}", (ROOT / "CHANGELOG.md").read_text())
    assert told is not None
    assert commands <= set(told.group(1).split(","))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_has_one_running_by_line_20() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("scripts/serve") for line in lines[:20])
    assert any(line.startswith("curl") for line in lines[:20])
