"""Bundles by name: promoted, rolled back, listed, and never pointing at half a bundle."""

import fcntl
import json
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path

import pytest

from models.__main__ import main
from models.bundle import Bundle, BundleError
from models.registry import Registry
from tests.unit.bundle_copies import copied, variant


@pytest.fixture
def registry(bundle: Bundle, tmp_path: Path) -> Registry:
    """A registry of the default bundle, to which nothing points."""
    copied(bundle, tmp_path / "bundles")
    return Registry(tmp_path / "bundles")


@pytest.fixture
def second(bundle: Bundle, registry: Registry) -> str:
    """The version of one more bundle in it, which is more careful."""
    return variant(bundle, registry.folder, confidence_threshold=0.99).name


def test_default_registry_has_a_bundle_in_production(bundle: Bundle) -> None:
    registry = Registry()
    assert registry.names()["production"] == bundle.version
    assert bundle.version in registry.versions()
    assert registry.manifest(bundle.version) == bundle.manifest


def test_promote_rollback_list(registry: Registry, bundle: Bundle, second: str) -> None:
    first = bundle.version
    assert (registry.names(), registry.versions()) == ({}, sorted([first, second]))
    assert registry.promote(first) == first
    assert registry.promote(second) == second
    assert registry.promote("production", "canary") == second
    assert registry.names() == {"canary": second, "production": second}
    assert registry.load("production").manifest.confidence_threshold == 0.99
    assert registry.rollback() == first
    assert registry.names() == {"canary": second, "production": first}
    with pytest.raises(BundleError, match="'production' has no version before"):
        registry.rollback()
    assert registry.load("production").version == first


def test_promoting_what_is_promoted_adds_no_history(registry: Registry, bundle: Bundle, second: str) -> None:
    for reference in (bundle.version, second, second, second):
        registry.promote(reference)
    assert registry.rollback() == bundle.version


def test_history_is_bounded(registry: Registry, bundle: Bundle, second: str) -> None:
    for _ in range(12):
        registry.promote(bundle.version)
        registry.promote(second)
    history = json.loads((registry.folder / "production.json").read_text())["history"]
    assert (len(history), history[-1]) == (20, bundle.version)


def test_bundle_is_found_by_path_version_and_name(registry: Registry, bundle: Bundle) -> None:
    path = registry.folder / bundle.version
    registry.promote(str(path), "stable")
    assert [registry.resolve(r) for r in (str(path), bundle.version, "stable")] == [path] * 3
    assert Registry.at(str(registry.folder)).load("stable").path == path


def test_unknown_reference_lists_all_places(registry: Registry) -> None:
    with pytest.raises(BundleError) as refused:
        registry.load("nightly")
    for place in ("'nightly'", str(registry.folder / "nightly"), str(registry.folder / "nightly.json")):
        assert place in str(refused.value)


@pytest.mark.parametrize("name", ["", "Production", "../production", "a b", ".hidden", "1st", "x" * 65])
def test_unfit_name_is_refused(registry: Registry, bundle: Bundle, name: str) -> None:
    with pytest.raises(BundleError, match="is not a valid name: expected a lower-case letter, then at most 63"):
        registry.promote(bundle.version, name)
    assert registry.names() == {}


def test_name_that_would_be_taken_for_a_bundle_is_refused(registry: Registry, bundle: Bundle, second: str) -> None:
    (registry.folder / second).rename(registry.folder / "latest")
    for name in ("latest", "abcdef012345"):
        with pytest.raises(BundleError, match=f"'{name}' is not a valid name: a bundle's folder has it"):
            registry.promote(bundle.version, name)
    assert registry.names() == {}
    assert registry.promote(bundle.version, "abcdef01234") == bundle.version


def test_name_that_points_nowhere_cannot_roll_back(registry: Registry) -> None:
    with pytest.raises(BundleError, match="no name 'canary'"):
        registry.rollback("canary")


@pytest.mark.parametrize("force", [False, True])
def test_damaged_bundle_is_not_promoted(registry: Registry, bundle: Bundle, second: str, force: bool) -> None:
    registry.promote(bundle.version)
    (registry.folder / second / "context.npz").write_bytes(b"half")
    with pytest.raises(BundleError, match=r"context\.npz: SHA-256 is"):
        registry.promote(second, force=force)
    assert registry.load("production").version == bundle.version


def test_damaged_bundle_is_not_rolled_back_to(registry: Registry, bundle: Bundle, second: str) -> None:
    registry.promote(bundle.version)
    registry.promote(second)
    (registry.folder / bundle.version / "context.npz").unlink()
    with pytest.raises(BundleError, match=r"context\.npz: missing"):
        registry.rollback()
    assert registry.load("production").version == second


def test_rollback_to_a_bundle_that_is_gone_says_what_to_do(registry: Registry, bundle: Bundle, second: str) -> None:
    registry.promote(bundle.version, "canary")
    registry.promote(second, "canary")
    gone = (registry.folder / bundle.version).rename(registry.folder.parent / "elsewhere")
    with pytest.raises(BundleError) as refused:
        registry.rollback("canary")
    assert str(refused.value) == (
        f"'canary' cannot go back: {registry.folder / bundle.version}: no manifest.json, so not a bundle; point it at "
        "another bundle with promote VERSION --name canary --force"
    )
    assert registry.load("canary").version == second
    gone.rename(registry.folder / bundle.version)
    assert registry.rollback("canary") == bundle.version


def test_looking_at_a_registry_that_is_not_there_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bundels"
    assert main(["rollback", "--registry", str(folder)]) == 2
    assert capsys.readouterr().err == f"error: no name 'production' in {folder}\n"
    assert main(["list", "--registry", str(folder)]) == 2
    assert capsys.readouterr() == ("", f"error: no registry in {folder}: no such folder\n")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_registry_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--registry", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", f"{tmp_path}: no bundles\n")


def test_a_rollback_that_is_refused_leaves_no_lock(registry: Registry, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no name"):
        registry.rollback()
    assert [path.name for path in registry.folder.iterdir()] == [bundle.version]


def test_bundle_from_elsewhere_is_not_promoted(registry: Registry, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="lies outside the registry"):
        registry.promote(str(bundle.path))


def test_bundle_in_a_folder_of_another_name_is_not_promoted(registry: Registry, second: str) -> None:
    renamed = (registry.folder / second).rename(registry.folder / "latest")
    with pytest.raises(BundleError, match=f"{renamed} .* is not named after its version: copy it to .*{second}"):
        registry.promote("latest", force=True)
    assert registry.names() == {}


def test_promotion_waits_for_one_that_is_under_way(registry: Registry, bundle: Bundle) -> None:
    with ThreadPoolExecutor(1) as pool:
        with (registry.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            promotion = pool.submit(registry.promote, bundle.version)
            assert not wait([promotion], timeout=2).done
            assert registry.names() == {}
        assert promotion.result(timeout=120) == bundle.version
    assert registry.names() == {"production": bundle.version}


def test_concurrent_promotions_leave_a_valid_pointer(registry: Registry, bundle: Bundle, second: str) -> None:
    versions = {bundle.version, second}
    registry.promote(bundle.version)

    def promote(number: int) -> str:
        return Registry(registry.folder).promote(sorted(versions)[number % 2])

    def look(_: int) -> str:
        return Registry(registry.folder).names()["production"]

    with ThreadPoolExecutor(6) as pool:
        promoted = [pool.submit(promote, number) for number in range(16)]
        seen = set(pool.map(look, range(2000)))
        assert {future.result() for future in promoted} == versions
    assert seen <= versions
    pointer = json.loads((registry.folder / "production.json").read_text())
    timeline = [*pointer["history"], pointer["version"]]
    assert set(timeline) <= versions
    assert all(older != newer for older, newer in pairwise(timeline))
    assert registry.load("production").version == pointer["version"]
    assert sorted(path.name for path in registry.folder.iterdir()) == sorted([".lock", "production.json", *versions])


def test_training_data_beside_the_bundles_is_no_name(registry: Registry) -> None:
    before = registry.names()
    (registry.folder / "clinc.json").write_text('{"train": [["hi", "greeting"]]}')
    assert registry.names() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 3, "history": []}', '{"version": "a"}'])
def test_a_damaged_name_says_so(registry: Registry, content: str) -> None:
    (registry.folder / "production.json").write_text(content)
    for use in (registry.names, registry.rollback, lambda: registry.load("production")):
        with pytest.raises(BundleError, match=r"production\.json: damaged"):
            use()


def test_a_damaged_bundle_does_not_hide_the_others(
    registry: Registry, second: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (registry.folder / second / "manifest.json").write_text("{}")
    assert main(["list", "--registry", str(registry.folder)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "unreadable" in lines[second]
    assert "labels" in lines[bundle.version]


def test_damaged_names_do_not_hide_the_others(
    registry: Registry, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.promote(bundle.version)
    (registry.folder / "canary.json").write_text('{"version": 3}')
    (registry.folder / "loop.json").symlink_to("loop.json")
    (registry.folder / "aaaaaaaaaaaa" / "manifest.json").mkdir(parents=True)
    capsys.readouterr()
    assert main(["list", "--registry", str(registry.folder)]) == 0
    told = {tuple(line.split()[:2]): line for line in capsys.readouterr().out.splitlines()}
    assert "labels" in told.pop((bundle.version, "production"))
    assert f"unreadable: {registry.folder / 'canary.json'}: damaged: " in told.pop(("-", "canary"))
    assert f"unreadable: {registry.folder / 'loop.json'}: " in told.pop(("-", "loop"))
    assert "unreadable: " in told.pop(("aaaaaaaaaaaa", "-"))
    assert not told


def test_a_name_whose_bundle_is_gone_is_listed(
    registry: Registry, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (registry.folder / "canary.json").write_text('{"version": "deadbeef0123", "history": []}')
    assert main(["list", "--registry", str(registry.folder)]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "canary" in line and "gone" in line]


def test_a_name_does_not_go_back_to_a_folder_that_holds_another_version(registry: Registry, bundle: Bundle) -> None:
    shutil.copytree(bundle.path, registry.folder / "aaaaaaaaaaaa")
    pointer = registry.folder / "canary.json"
    pointer.write_text('{"version": "bbbbbbbbbbbb", "history": ["aaaaaaaaaaaa"]}')
    before = pointer.read_text()
    with pytest.raises(BundleError, match=f"aaaaaaaaaaaa: holds version {bundle.version}"):
        registry.rollback("canary")
    assert pointer.read_text() == before
