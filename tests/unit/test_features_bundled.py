"""The preprocessing function of a bundle, without the rest of it."""

from pathlib import Path

import pytest

from features.bundled import PRODUCTION, bundled_preprocessor
from models.bundle import Bundle
from tests.unit.bundle_copies import copied, variant


def test_it_is_that_of_the_bundle(bundle: Bundle) -> None:
    for path in (None, PRODUCTION, bundle.path):
        assert bundled_preprocessor(path).fingerprint == bundle.manifest.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "production.json: no such file"),
        ("{", "production.json: Input data was truncated"),
        ('{"history": []}', "production.json: .*missing required field `version`"),
        ('{"version": "gone"}', "gone/manifest.json: no such file"),
    ],
)
def test_a_pointer_that_leads_nowhere_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "production.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        bundled_preprocessor(tmp_path / "production.json")


def test_a_bundle_of_other_preprocessing_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = variant(bundle, tmp_path, fingerprint="0123456789abcdef")
    with pytest.raises(ValueError, match=f"0123456789abcdef, this code's is {bundle.manifest.fingerprint}"):
        bundled_preprocessor(other)


def test_a_bundle_without_a_tokenizer_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer.json: no such file"):
        bundled_preprocessor(folder)
