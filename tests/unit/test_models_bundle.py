"""A bundle is served whole, unaltered and with the preprocessing that it was trained with, or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import PARTS, Bundle, BundleError, content_version, read_manifest, write_bundle, write_manifest
from tests.unit.bundle_copies import copied, variant


def written_again(bundle: Bundle, registry: Path, **thresholds: float) -> Bundle:
    """What training writes when it comes to the same, but for the thresholds that are given."""
    manifest = bundle.manifest.model_copy(update=thresholds)
    return write_bundle(
        registry,
        {part: bundle.path / part for part in PARTS},
        labels=manifest.labels,
        out_of_scope=manifest.out_of_scope,
        preprocessor=bundle.preprocessor,
        temperature=manifest.temperature,
        confidence_threshold=manifest.confidence_threshold,
        out_of_scope_threshold=manifest.out_of_scope_threshold,
        training={"rows": 3},
    )


def test_a_copy_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle(copied(bundle, tmp_path))
    assert copy.manifest == bundle.manifest
    assert copy.version == bundle.version == bundle.path.name
    assert copy.context.screens.shape[1] == copy.manifest.outputs == copy.classifier().outputs


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(bundle: Bundle, tmp_path: Path, part: str) -> None:
    path = copied(bundle, tmp_path)
    (path / part).unlink()
    with pytest.raises(BundleError, match=f"{part}: missing"):
        Bundle(path)


@pytest.mark.parametrize("damage", ["altered", "cut short", "grown"])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_part_is_named(bundle: Bundle, tmp_path: Path, part: str, damage: str) -> None:
    path = copied(bundle, tmp_path)
    content = (path / part).read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (path / part).write_bytes({"altered": altered, "cut short": content[:-1], "grown": content + b"\n"}[damage])
    with pytest.raises(
        BundleError, match=f"{part}: SHA-256 is .*, the manifest says {bundle.manifest.files[part][:12]}"
    ):
        Bundle(path)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_manifest_does_not_list_is_named(bundle: Bundle, tmp_path: Path, part: str) -> None:
    files = {name: digest for name, digest in bundle.manifest.files.items() if name != part}
    with pytest.raises(BundleError, match=f"the manifest lists no {part}"):
        Bundle(variant(bundle, tmp_path, files=files))


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", 3.0), ("confidence_threshold", 0.0), ("out_of_scope_threshold", 1.0), ("labels", ["a", "b"])],
)
def test_an_altered_manifest_no_longer_fits_its_version(bundle: Bundle, tmp_path: Path, key: str, value: Any) -> None:
    path = copied(bundle, tmp_path) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(BundleError, match=f"the content's version is .*, the manifest says {bundle.version}"):
        Bundle(path.parent)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "manifest.json: Invalid JSON"),
        (b'{"version": ', "manifest.json"),
        (b"\xff\xfe", "manifest.json"),
        (b"{}", "version: Field required"),
    ],
)
def test_an_unreadable_manifest_is_refused(bundle: Bundle, tmp_path: Path, content: bytes, told: str) -> None:
    path = copied(bundle, tmp_path)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=told):
        Bundle(path)


def test_a_manifest_with_an_unknown_or_impossible_value_is_refused_by_key(bundle: Bundle, tmp_path: Path) -> None:
    path = copied(bundle, tmp_path) / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, told in (({"colour": "red"}, "colour: "), ({"temperature": 0}, "temperature: ")):
        path.write_text(json.dumps(manifest | change))
        with pytest.raises(BundleError, match=told):
            read_manifest(path.parent)


def test_no_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent: no manifest\.json"):
        Bundle(tmp_path / "absent")


def test_another_preprocessing_is_refused_naming_both(bundle: Bundle, tmp_path: Path) -> None:
    path = variant(bundle, tmp_path, fingerprint="0123456789abcdef")
    with pytest.raises(BundleError) as refused:
        Bundle(path)
    assert "0123456789abcdef" in str(refused.value)
    assert bundle.manifest.fingerprint in str(refused.value)


def test_a_changed_preprocessing_setting_is_another_preprocessing(bundle: Bundle, tmp_path: Path) -> None:
    shorter = bundle.manifest.preprocessing.model_copy(update={"max_tokens": 32})
    with pytest.raises(BundleError, match=f"trained with preprocessing {bundle.manifest.fingerprint}"):
        Bundle(variant(bundle, tmp_path, preprocessing=shorter))


def test_labels_must_fit_the_network(bundle: Bundle, tmp_path: Path) -> None:
    more = Bundle(variant(bundle, tmp_path, labels=(*bundle.manifest.labels, "zebras")))
    with pytest.raises(BundleError, match=f"has {bundle.manifest.outputs} outputs, the labels need"):
        more.classifier()


def test_version_is_of_what_changes_an_answer(bundle: Bundle) -> None:
    told = {"metrics": {"clear": {"accuracy": 0.1}}, "training": {"rows": 1}}
    assert content_version(bundle.manifest.model_copy(update=told)) == bundle.version
    assert content_version(bundle.manifest.model_copy(update={"temperature": 9.0})) != bundle.version


def test_written_bundle_is_complete_and_reads_back(bundle: Bundle, tmp_path: Path) -> None:
    for _ in range(2):
        written = written_again(bundle, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [bundle.version]
        assert written.version == bundle.version
        assert written.manifest.training == {"rows": 3}
    rows = bundle.preprocessor.tokens(["my card was declined"])
    assert np.array_equal(written.classifier()(rows), bundle.classifier()(rows))


def test_a_bundle_that_is_written_again_keeps_its_figures_and_a_damaged_one_is_mended(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = written_again(bundle, tmp_path).path
    write_manifest(path, read_manifest(path).model_copy(update={"metrics": {"clear": {"accuracy": 0.5}}}))
    assert written_again(bundle, tmp_path).manifest.metrics == {"clear": {"accuracy": 0.5}}
    (path / "text.onnx").write_bytes(b"cut short")
    mended = written_again(bundle, tmp_path)
    assert mended.classifier().outputs == bundle.manifest.outputs
    assert mended.manifest.metrics == {}


@pytest.mark.parametrize("threshold", [0.0, 3.21e-9, 0.123456789123, 0.99999994, 1.0])
def test_written_thresholds_route_whatever_the_given_ones_do(bundle: Bundle, tmp_path: Path, threshold: float) -> None:
    manifest = written_again(
        bundle, tmp_path, confidence_threshold=threshold, out_of_scope_threshold=threshold
    ).manifest
    assert manifest.confidence_threshold <= threshold <= manifest.out_of_scope_threshold
    for written in (manifest.confidence_threshold, manifest.out_of_scope_threshold):
        assert written == pytest.approx(threshold, rel=1e-8, abs=0)
        assert np.float32(written) == np.float32(threshold)


def test_default_bundle_is_small_enough_to_commit(bundle: Bundle) -> None:
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= 12e6
