"""The preprocessing function of a bundle, without the rest of it."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from features.__main__ import main
from features.bundled import PRODUCTION, bundled_preprocessor
from features.preprocess import PreprocessConfig, Preprocessor
from models.bundle import Bundle, BundleError
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
    with pytest.raises(ValueError, match=r"tokenizer.json: missing$"):
        bundled_preprocessor(folder)


def cut_short(folder: Path) -> None:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:1000])


def longer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")


def rewritten(folder: Path, **changes: Any) -> None:
    """A manifest by hand, whose version is still that of before."""
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def of_other_screens(folder: Path) -> None:
    """The fingerprint fits, as that of the manifest and of the running code are of the same configuration."""
    config = PreprocessConfig(max_screens=2)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rewritten(folder, preprocessing=config.model_dump(), fingerprint=Preprocessor(config, tokenizer).fingerprint)


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (cut_short, "tokenizer.json: SHA-256 is .* the file was altered or cut short; copy the bundle again"),
        (longer, "tokenizer.json: SHA-256 is "),
        (of_other_screens, "the content's version is [0-9a-f]{12}, the manifest says {version}"),
        (partial(rewritten, preprocessing={"max_screens": 0}), "the content's version is "),
        (partial(rewritten, labels=["loans"]), "the content's version is "),
        (partial(rewritten, files={}), "the manifest lists no tokenizer.json"),
        (partial(rewritten, files=5), "manifest.json: .*Expected `object`, got `int`"),
        (partial(rewritten, version=None), "manifest.json: .*Expected `str`, got `null`"),
    ],
)
def test_an_altered_bundle_is_refused_in_one_line(
    bundle: Bundle, tmp_path: Path, alter: Callable[[Path], None], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bundle, tmp_path)
    alter(folder)
    assert main(["drift", "--log", str(tmp_path / "log"), "--bundle", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"error: {folder}.*{told.replace('{version}', bundle.version)}.*", line)


def test_what_is_refused_is_not_served_either(bundle: Bundle, tmp_path: Path) -> None:
    for alter in (cut_short, longer, of_other_screens):
        folder = copied(bundle, tmp_path / alter.__name__)
        alter(folder)
        with pytest.raises(BundleError) as refused:
            Bundle(folder)
        with pytest.raises(ValueError, match=re.escape(str(refused.value))):
            bundled_preprocessor(folder)


def test_figures_may_change_as_they_do_when_a_bundle_is_evaluated(bundle: Bundle, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path)
    rewritten(folder, metrics={}, training={"seconds": 1})
    assert bundled_preprocessor(folder).fingerprint == bundle.manifest.fingerprint
