"""A registry at an URL: bundles are put there whole, copied from there when they are used, and checked each time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.__main__ import main
from models.bundle import PARTS, Bundle, BundleError
from models.registry import Registry
from tests.unit.bundle_copies import copied, variant


class BreaksOff(MemoryFileSystem):  # type: ignore[misc]
    """Takes one file, and then no more."""

    protocol = "breaksoff"
    puts = 0

    def put_file(self, lpath: str, rpath: str, **options: object) -> None:
        BreaksOff.puts += 1
        if BreaksOff.puts == 2:
            raise OSError("connection lost")
        super().put_file(lpath, rpath, **options)


class NeedsKeys(MemoryFileSystem):  # type: ignore[misc]
    """Refuses with an error of its own library's."""

    protocol = "needskeys"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        raise LookupError("no credentials found")

    def ls(self, path: str, detail: bool = True, **options: object) -> list[Any]:
        raise LookupError("no credentials found")


for kind in (BreaksOff, NeedsKeys):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of bundles lie on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "switchboard" / "bundles"


@pytest.fixture
def url(tmp_path: Path, cache: Path) -> str:
    """A registry in memory that is this test's own, and empty."""
    return f"memory://{tmp_path.name}/bundles"


@pytest.fixture
def second(bundle: Bundle, tmp_path: Path) -> Path:
    """The folder of one more bundle on this machine, outside of any registry."""
    return variant(bundle, tmp_path / "trained", confidence_threshold=0.99)


def store(url: str) -> tuple[MemoryFileSystem, str]:
    files, root = fsspec.url_to_fs(url)
    return files, str(root)


def test_promote_rollback_list(url: str, bundle: Bundle, second: Path, cache: Path) -> None:
    first, other = bundle.version, second.name
    registry = Registry.at(url)
    assert (registry.versions(), registry.names()) == ([], {})
    assert registry.promote(str(bundle.path)) == first
    assert registry.promote(str(second), force=True) == other
    assert registry.promote("production", "canary") == other
    again = Registry.at(url)
    assert again.versions() == sorted([first, other])
    assert again.names() == {"canary": other, "production": other}
    assert again.manifest(first) == bundle.manifest
    assert again.load("production").manifest.confidence_threshold == 0.99
    assert again.rollback() == first
    assert Registry.at(url).load("production").version == first
    with pytest.raises(BundleError, match="'production' has no version before"):
        again.rollback()


def test_what_is_copied_is_the_bundle(url: str, bundle: Bundle, cache: Path) -> None:
    Registry.at(url).promote(str(bundle.path))
    loaded = Registry.at(url).load("production")
    assert loaded.path == cache / bundle.version
    assert {path.name: path.read_bytes() for path in loaded.path.iterdir()} == {
        path.name: path.read_bytes() for path in bundle.path.iterdir()
    }
    assert [path.name for path in cache.iterdir()] == [bundle.version]


def test_a_worse_bundle_is_refused_and_not_even_uploaded(url: str, bundle: Bundle, tmp_path: Path) -> None:
    registry = Registry.at(url)
    registry.promote(str(bundle.path))
    worse = variant(bundle, tmp_path / "worse", labels=("zebras", *bundle.manifest.labels[1:]))
    with pytest.raises(BundleError, match=f"'production' stays {bundle.version}: it lacks the labels"):
        registry.promote(str(worse))
    assert registry.versions() == [bundle.version]


def test_a_copy_is_enough_where_a_version_is_asked_for(url: str, bundle: Bundle) -> None:
    Registry.at(url).promote(str(bundle.path))
    Registry.at(url).load("production")
    files, root = store(url)
    files.rm(root, recursive=True)
    assert Registry.at(url).load(bundle.version).version == bundle.version
    with pytest.raises(BundleError, match=f"no bundle 'production': tried production, {url}/production, "):
        Registry.at(url).load("production")


@pytest.mark.parametrize("part", PARTS)
def test_a_copy_that_was_altered_is_made_again(url: str, bundle: Bundle, cache: Path, part: str) -> None:
    Registry.at(url).promote(str(bundle.path))
    Registry.at(url).load("production")
    (cache / bundle.version / part).write_bytes(b"altered")
    assert Registry.at(url).load(bundle.version).version == bundle.version
    assert (cache / bundle.version / part).read_bytes() == (bundle.path / part).read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_bundle_is_refused_by_its_url_and_leaves_no_copy(
    url: str, bundle: Bundle, cache: Path, part: str
) -> None:
    Registry.at(url).promote(str(bundle.path))
    files, root = store(url)
    files.pipe_file(f"{root}/{bundle.version}/{part}", b"cut short")
    shutil.rmtree(cache, ignore_errors=True)
    with pytest.raises(BundleError, match=f"^{url}/{bundle.version}/{part}: SHA-256 is "):
        Registry.at(url).load("production")
    files.rm(f"{root}/{bundle.version}/{part}")
    with pytest.raises(BundleError, match=f"^{url}/{bundle.version}: no {part}, so not a bundle"):
        Registry.at(url).load("production")
    assert list(cache.iterdir()) == []


def test_a_folder_of_another_version_is_refused(url: str, bundle: Bundle, cache: Path) -> None:
    files, root = store(url)
    for part in (*PARTS, "manifest.json"):
        for folder in ("0123456789ab", "latest"):
            files.pipe_file(f"{root}/{folder}/{part}", (bundle.path / part).read_bytes())
    assert Registry.at(url).versions() == ["0123456789ab"]
    with pytest.raises(BundleError, match=f"{url}/0123456789ab: holds version {bundle.version}"):
        Registry.at(url).load("0123456789ab")
    with pytest.raises(BundleError, match=f"{url}/latest: not named after a version"):
        Registry.at(url).load("latest")
    with pytest.raises(BundleError, match="'latest' is not a valid name"):
        Registry.at(url).promote(str(bundle.path), "latest")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "../../etc", "history": []}'])
def test_a_damaged_name_says_so(url: str, bundle: Bundle, content: bytes) -> None:
    Registry.at(url).promote(str(bundle.path))
    files, root = store(url)
    files.pipe_file(f"{root}/production.json", content)
    with pytest.raises(BundleError, match=rf"{url}/(production\.json: damaged|\.\./\.\./etc: not named)"):
        Registry.at(url).load("production")


def test_other_files_there_are_no_names(url: str, bundle: Bundle) -> None:
    Registry.at(url).promote(str(bundle.path))
    files, root = store(url)
    files.pipe_file(f"{root}/clinc.json", b'{"train": [["hi", "greeting"]]}')
    files.pipe_file(f"{root}/.production.json", files.cat_file(f"{root}/production.json"))
    assert Registry.at(url).names() == {"production": bundle.version}


def test_an_upload_that_breaks_off_leaves_no_bundle_and_no_name(bundle: Bundle, tmp_path: Path, cache: Path) -> None:
    registry = Registry.at(f"breaksoff://{tmp_path.name}")
    with pytest.raises(OSError, match="connection lost"):
        registry.promote(str(bundle.path))
    assert (registry.versions(), registry.names()) == ([], {})
    assert registry.promote(str(bundle.path)) == bundle.version
    assert registry.load("production").version == bundle.version


def test_url_of_local_files_is_a_folder(bundle: Bundle, tmp_path: Path, cache: Path) -> None:
    copied(bundle, tmp_path / "bundles")
    registry = Registry.at((tmp_path / "bundles").as_uri())
    assert registry.promote(bundle.version) == bundle.version
    assert registry.load("production").path == tmp_path / "bundles" / bundle.version
    assert Registry(tmp_path / "bundles").names() == {"production": bundle.version}
    assert not cache.exists()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nonsense://bundles", "registry nonsense://bundles: Protocol not known: nonsense"),
        ("needskeys://bundles", "needskeys://bundles: LookupError: no credentials found"),
    ],
)
def test_what_cannot_be_reached_is_one_line(
    place: str, told: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("rollback", "list"):
        assert main([command, "--registry", place]) == 2
        assert capsys.readouterr().err == f"error: {told}\n"


def test_commands_take_an_url(url: str, bundle: Bundle, second: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", str(bundle.path), "--registry", url]) == 0
    assert main(["promote", str(second), "--registry", url]) == 0
    assert main(["rollback", "--registry", url]) == 0
    assert main(["list", "--registry", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"production {version}" for version in (bundle.version, second.name, bundle.version)]
    assert [line.split()[:2] for line in lines[3:]] == sorted([[bundle.version, "production"], [second.name, "-"]])


def test_a_registry_of_which_nothing_is_there_is_told(
    url: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--registry", url]) == 2
    assert capsys.readouterr() == ("", f"error: no registry in {url}: no such folder\n")
    files, root = store(url)
    files.makedirs(root)
    assert main(["list", "--registry", url]) == 0
    assert capsys.readouterr() == ("", f"{url}: no bundles\n")


def test_training_does_not_write_to_an_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "--data", str(tmp_path / "absent.csv"), "--out", "s3://bucket/bundles"])
    assert left.value.code == 2
    assert "argument --out: s3://bucket/bundles is an URL, expected a folder" in capsys.readouterr().err


def test_fsspec_is_loaded_for_urls_only() -> None:
    script = (
        "import json, sys; from models.registry import Registry; Registry.at(str(Registry().folder)).names(); "
        "before = 'fsspec' in sys.modules; Registry.at('memory://x'); "
        "print(json.dumps([before, 'fsspec' in sys.modules]))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True]
