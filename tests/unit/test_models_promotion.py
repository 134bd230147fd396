"""A worse bundle does not get into the place of a better one, unless it is forced; a broken one never does."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import Barrier

import pytest

from models.bundle import Bundle, BundleError
from models.data import CORPUS, Example, load
from models.registry import Registry
from tests.unit.bundle_copies import variant

Maker = Callable[..., str]


class Interrupted(list[Example]):
    """Rows; the first to read them does something else before."""

    def __init__(self, rows: Iterable[Example], other: Callable[[], object]) -> None:
        super().__init__(rows)
        self._others = [other]

    def __iter__(self) -> Iterator[Example]:
        if self._others:
            self._others.pop()()
        return super().__iter__()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty one."""
    return Registry(tmp_path / "bundles")


@pytest.fixture
def made(bundle: Bundle, registry: Registry) -> Maker:
    """Adds a bundle with the accuracy that its manifest is to tell; returns its version."""

    def make(accuracy: float, data: str = "5ha", labels: tuple[str, ...] = bundle.manifest.labels) -> str:
        threshold = 0.5 + len(registry.versions()) / 1000
        metrics = {"clear": {"n": 200, "data": data, "accuracy": accuracy}}
        return variant(bundle, registry.folder, metrics=metrics, labels=labels, confidence_threshold=threshold).name

    return make


def timeline(registry: Registry) -> list[str]:
    """All versions that production pointed at, and the present one."""
    pointer = json.loads((registry.folder / "production.json").read_text())
    return [*pointer["history"], pointer["version"]]


def test_a_worse_bundle_is_refused_with_numbers(registry: Registry, made: Maker) -> None:
    present = registry.promote(made(0.8))
    worse = made(0.7)
    with pytest.raises(BundleError) as refused:
        registry.promote(worse)
    assert str(refused.value) == (
        f"{worse} is not promoted, 'production' stays {present}: clear: accuracy 0.7000, present 0.8000, "
        "tolerance 0.005; promote it all the same with --force"
    )
    assert timeline(registry) == [present]


def test_all_reasons_are_told_at_once(registry: Registry, made: Maker, bundle: Bundle) -> None:
    registry.promote(made(0.8))
    with pytest.raises(BundleError, match=r"lacks the labels .*; clear: accuracy 0\.7000.*; promote .* --force"):
        registry.promote(made(0.7, labels=("zebras", *bundle.manifest.labels[1:])))


@pytest.mark.parametrize("accuracy", [0.795, 0.8, 0.9])
def test_a_better_bundle_and_one_within_the_tolerance_are_promoted(
    registry: Registry, made: Maker, accuracy: float
) -> None:
    versions = [made(0.8), made(accuracy)]
    assert [registry.promote(version) for version in versions] == versions == timeline(registry)


def test_the_tolerance_can_be_chosen(registry: Registry, made: Maker) -> None:
    registry.promote(made(0.8))
    lower = made(0.797)
    with pytest.raises(BundleError, match=r"tolerance 0\.002;"):
        registry.promote(lower, tolerance=0.002)
    assert registry.promote(lower, tolerance=0.003) == lower


def test_force_promotes_what_is_worse_and_rollback_asks_nothing(registry: Registry, made: Maker) -> None:
    good, worse, best = versions = [made(0.8), made(0.1), made(0.9)]
    for version in versions:
        registry.promote(version, force=True)
    assert timeline(registry) == [good, worse, best]
    assert [registry.rollback(), registry.rollback()] == [worse, good]


def test_a_bundle_that_routes_nothing_is_not_the_first_either_unless_forced(registry: Registry, bundle: Bundle) -> None:
    metrics = {"clear": {"n": 200, "data": "5ha", "accuracy": 0.99, "coverage": 0.0, "selective_accuracy": None}}
    idle = variant(bundle, registry.folder, metrics=metrics, confidence_threshold=1.0).name
    with pytest.raises(BundleError, match=f"{idle} is not promoted, 'production' stays unset: it routes nothing"):
        registry.promote(idle)
    assert registry.names() == {}
    assert registry.promote(idle, force=True) == idle


def test_figures_of_other_data_are_refused_and_each_name_is_compared_on_its_own(
    registry: Registry, made: Maker
) -> None:
    present, other = registry.promote(made(0.8)), made(0.9, data="0ther")
    with pytest.raises(BundleError, match="not measured on the same data: compare them with --data FILE; promote"):
        registry.promote(other)
    assert registry.promote(other, "canary") == other
    assert registry.names() == {"canary": other, "production": present}


def test_rows_decide_in_place_of_the_manifests(registry: Registry, made: Maker, bundle: Bundle) -> None:
    rows = load(CORPUS / "holdout")[:24]
    first, *rest = bundle.manifest.labels
    wrong, right = made(0.9, data="0ther", labels=(*rest, first)), made(0.1)
    registry.promote(wrong)
    assert registry.promote(right, examples=rows) == right
    with pytest.raises(BundleError, match="the given rows: accuracy"):
        registry.promote(wrong, examples=rows)


def test_a_bundle_for_other_preprocessing_is_refused_even_if_forced(
    registry: Registry, made: Maker, bundle: Bundle
) -> None:
    present = registry.promote(made(0.8))
    other = variant(bundle, registry.folder, fingerprint="0123456789abcdef").name
    for force in (False, True):
        with pytest.raises(BundleError) as refused:
            registry.promote(other, force=force)
        for fingerprint in ("0123456789abcdef", bundle.manifest.fingerprint):
            assert fingerprint in str(refused.value)
    assert timeline(registry) == [present]


@pytest.mark.parametrize("force", [False, True])
def test_a_bundle_whose_network_does_not_load_is_refused_even_if_forced(
    registry: Registry, made: Maker, bundle: Bundle, force: bool
) -> None:
    present = registry.promote(made(0.8))
    files = {**bundle.manifest.files, "text.onnx": sha256(b"no network").hexdigest()}
    other = variant(bundle, registry.folder, files=files)
    (other / "text.onnx").write_bytes(b"no network")
    wider = variant(bundle, registry.folder, labels=(*bundle.manifest.labels, "zebras"))
    for broken, reason in ((other, "cannot be read or run: .*Protobuf"), (wider, "outputs, the labels need")):
        with pytest.raises(BundleError, match=f"{broken}: text.onnx .*{reason}"):
            registry.promote(broken.name, force=force)
    assert timeline(registry) == [present]


def test_a_present_bundle_that_is_gone_holds_nothing_up(registry: Registry, made: Maker) -> None:
    present = registry.promote(made(0.8))
    other = made(0.7, data="0ther")
    (registry.folder / present).rename(registry.folder.parent / "elsewhere")
    assert registry.promote(other) == other
    assert timeline(registry) == [present, other]


def test_a_bundle_that_got_better_company_meanwhile_is_compared_again(
    registry: Registry, made: Maker, bundle: Bundle
) -> None:
    first, second, *rest = bundle.manifest.labels
    bad, best = made(0.1, labels=(*rest, first, second)), made(0.9)
    fair = made(0.5, labels=(second, first, *rest))
    registry.promote(bad)
    of_two = [row for row in load(CORPUS / "holdout") if not row.has_context and row.product == first]
    others = [row for row in load(CORPUS / "holdout") if not row.has_context and row.product == rest[0]]
    rows = Interrupted([*of_two[:6], *others[:6]], lambda: registry.promote(best))
    with pytest.raises(BundleError, match=f"{fair} is not promoted, 'production' stays {best}: the given rows"):
        registry.promote(fair, examples=rows)
    assert timeline(registry) == [bad, best]


def test_many_promotions_at_once_only_ever_raise_the_accuracy(registry: Registry, made: Maker) -> None:
    accuracies = {made(accuracy): accuracy for accuracy in (0.5, 0.6, 0.7, 0.8, 0.9)}
    start, *_, best = accuracies
    registry.promote(start)
    together = Barrier(8)

    def promote(number: int) -> tuple[set[str], int]:
        done, refused = set(), 0
        together.wait(timeout=120)
        for version in random.Random(number).sample(sorted(accuracies), len(accuracies)):
            try:
                done.add(Registry(registry.folder).promote(version))
            except BundleError:
                refused += 1
        return done, refused

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(promote, range(8)))
    passed = timeline(registry)
    assert set(passed) == {start}.union(*(done for done, _ in outcomes))
    assert all(accuracies[older] < accuracies[newer] for older, newer in pairwise(passed))
    assert registry.load("production").version == passed[-1] == best
    assert sum(refused for _, refused in outcomes) > 0
