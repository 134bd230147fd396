"""What speaks against a bundle in the place of another: lost labels, other data, worse figures."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Bundle, BundleError, Manifest
from models.data import CORPUS, OUT_OF_SCOPE, Example, load
from models.gates import against, compare, measured
from tests.unit.bundle_copies import copied, variant

SETS = ("clear", "holdout")
WATCHED = ("accuracy", "ood_auroc")
TOLERANCES = st.floats(0, 0.2)

shares = st.integers(0, 10_000).map(lambda share: share / 10_000)
tables = st.fixed_dictionaries({name: st.fixed_dictionaries(dict.fromkeys(WATCHED, shares)) for name in SETS})


def figures(accuracy: float | None = 0.8, ood_auroc: float | None = 0.9, **others: Any) -> dict[str, Any]:
    return {"n": 100, "ood_n": 10, "data": "5ha", "accuracy": accuracy, "ood_auroc": ood_auroc} | others


def told(bundle: Bundle, **sets: dict[str, Any]) -> Manifest:
    return bundle.manifest.model_copy(update={"metrics": sets})


@pytest.fixture(scope="module")
def rows(bundle: Bundle) -> list[Example]:
    """Rows of every product of the default bundle and of none, four of each, without contexts."""
    found = [row for row in load(CORPUS / "holdout") if not row.has_context]
    products = (*bundle.manifest.labels, OUT_OF_SCOPE)
    chosen = [row for product in products for row in [r for r in found if r.product == product][:4]]
    assert len(chosen) == 4 * len(products)
    return chosen


@pytest.fixture(scope="module")
def wrong(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that answers each product with the name of the next one."""
    first, *rest = bundle.manifest.labels
    return Bundle(variant(bundle, tmp_path_factory.mktemp("wrong"), labels=(*rest, first)))


@given(tables, tables, TOLERANCES)
def test_nothing_speaks_against_figures_that_are_not_lower(
    bundle: Bundle, one: dict[str, Any], other: dict[str, Any], tolerance: float
) -> None:
    best = {name: {key: max(one[name][key], other[name][key]) for key in WATCHED} for name in SETS}
    candidate = told(bundle, **{name: figures(**best[name]) for name in SETS})
    assert compare(candidate, told(bundle, **{name: figures(**one[name]) for name in SETS}), tolerance) == []


@given(tables, tables, TOLERANCES, st.sampled_from(SETS), st.sampled_from(WATCHED), st.floats(1e-6, 0.5))
def test_one_figure_that_drops_beyond_the_tolerance_speaks_against(
    bundle: Bundle, one: dict[str, Any], other: dict[str, Any], tolerance: float, name: str, key: str, beyond: float
) -> None:
    candidate = told(bundle, **{each: figures(**one[each]) for each in SETS})
    before = {each: figures(**other[each]) for each in SETS}
    before[name][key] = one[name][key] + tolerance + beyond
    reasons = compare(candidate, told(bundle, **before), tolerance)
    assert any(reason.startswith(f"{name}: {key} ") for reason in reasons)


@pytest.mark.parametrize("accuracy", [0.795, 0.8, 0.95])
def test_a_drop_of_the_tolerance_itself_is_accepted(bundle: Bundle, accuracy: float) -> None:
    assert compare(told(bundle, clear=figures(accuracy)), told(bundle, clear=figures(0.8)), 0.005) == []


def test_each_worse_figure_is_told_with_its_numbers(bundle: Bundle) -> None:
    candidate = told(bundle, clear=figures(0.7949, 0.85), holdout=figures())
    assert compare(candidate, told(bundle, clear=figures(), holdout=figures()), 0.005) == [
        "clear: accuracy 0.7949, present 0.8000, tolerance 0.005",
        "clear: ood_auroc 0.8500, present 0.9000, tolerance 0.005",
    ]


def test_coverage_and_what_is_right_of_it_may_drop_by_more_than_accuracy(bundle: Bundle) -> None:
    n = 500
    present = told(bundle, clear=figures(n=n, coverage=0.9, selective_accuracy=0.95))
    assert compare(told(bundle, clear=figures(n=n, coverage=0.85, selective_accuracy=0.93)), present, 0.005) == []
    assert compare(told(bundle, clear=figures(n=n, coverage=0.84, selective_accuracy=0.92)), present, 0.005) == [
        "clear: coverage 0.8400, present 0.9000, tolerance 0.05",
        "clear: selective_accuracy 0.9200, present 0.9500, tolerance 0.02",
    ]
    assert compare(told(bundle, clear=figures(n=n, coverage=0.89, selective_accuracy=0.95)), present, 0.0)


def test_coverage_of_a_few_rows_says_little(bundle: Bundle) -> None:
    present = told(bundle, ambiguous=figures(n=120, coverage=0.9, selective_accuracy=0.95))
    assert compare(told(bundle, ambiguous=figures(n=120, coverage=0.7, selective_accuracy=0.8)), present, 0.005) == []


IDLE = "it routes nothing, coverage 0: all messages would go to the general queue"


def test_a_bundle_that_routes_nothing_is_told_whatever_it_is_compared_with(
    bundle: Bundle, rows: list[Example], tmp_path: Path
) -> None:
    nothing = figures(coverage=0.0, selective_accuracy=None)
    lazy = Bundle(variant(bundle, tmp_path, confidence_threshold=1.0, metrics={"clear": nothing, "holdout": nothing}))
    assert compare(lazy.manifest, told(bundle, clear=nothing), 1.0) == [IDLE]
    assert against(lazy, None) == against(lazy, tmp_path / "gone") == against(lazy, None, examples=rows) == [IDLE]
    praised = Bundle(variant(bundle, tmp_path / "praised", confidence_threshold=1.0))
    assert (against(praised, None), against(praised, None, examples=rows)) == ([], [IDLE])
    assert measured(lazy, bundle, rows, 0.005)[0] == IDLE
    assert against(bundle, None) == against(bundle, None, examples=rows) == []
    assert compare(told(bundle, clear=nothing, holdout=figures(coverage=0.1)), told(bundle, clear=nothing), 1.0) == []


def test_a_figure_that_is_there_no_longer_speaks_against(bundle: Bundle) -> None:
    present = told(bundle, clear=figures())
    for gone in (figures(ood_auroc=None), figures(ood_auroc=float("nan"))):
        assert compare(told(bundle, clear=gone), present, 1.0) == ["clear: no ood_auroc, present 0.9000"]
    assert compare(present, told(bundle, clear=figures(ood_auroc=None)), 0.005) == []


def test_no_number_as_tolerance_accepts_nothing(bundle: Bundle) -> None:
    candidate, present = told(bundle, clear=figures(0.1)), told(bundle, clear=figures(0.8))
    assert compare(candidate, present, float("nan"))


@pytest.mark.parametrize(
    "other",
    [
        {"clear": figures(n=101)},
        {"clear": figures(ood_n=11)},
        {"clear": figures(data="0ther")},
        {"clear": {key: value for key, value in figures().items() if key != "data"}},
        {"holdout": figures()},
        {},
    ],
    ids=["n", "ood_n", "digest", "no digest", "another set", "nothing"],
)
def test_figures_of_other_data_are_not_compared(bundle: Bundle, other: dict[str, Any]) -> None:
    here = told(bundle, clear=figures())
    for candidate, present in ((told(bundle, **other), here), (here, told(bundle, **other))):
        (reason,) = compare(candidate, present, 0.005)
        assert reason == "they were not measured on the same data: compare them with --data FILE"


@pytest.mark.parametrize("empty", [figures(None, None), {"accuracy": 0.8}], ids=["no figure", "no n"])
def test_a_set_that_tells_too_little_is_none_in_common(bundle: Bundle, empty: dict[str, Any]) -> None:
    (reason,) = compare(told(bundle, clear=empty), told(bundle, clear=empty), 0.005)
    assert reason.startswith("they were not measured on the same data")


def test_figures_without_digest_on_both_sides_are_compared(bundle: Bundle) -> None:
    both = [figures(accuracy) for accuracy in (0.7, 0.8)]
    for entry in both:
        del entry["data"]
    (reason,) = compare(told(bundle, clear=both[0]), told(bundle, clear=both[1]), 0.005)
    assert reason.startswith("clear: accuracy 0.7000")


def test_one_set_in_common_is_enough(bundle: Bundle) -> None:
    candidate = told(bundle, clear=figures(), holdout=figures(0.1, n=7))
    assert compare(candidate, told(bundle, clear=figures(), holdout=figures()), 0.005) == []


def test_lost_labels_are_named_and_new_ones_welcome(bundle: Bundle) -> None:
    present = told(bundle, clear=figures())
    fewer = present.model_copy(update={"labels": bundle.manifest.labels[2:]})
    assert compare(fewer, present, 0.005) == [
        f"it lacks the labels {sorted(bundle.manifest.labels[:2])}, which clients would lose"
    ]
    assert compare(present, fewer, 0.005) == []


def test_rows_tell_the_better_bundle(bundle: Bundle, wrong: Bundle, rows: list[Example]) -> None:
    (reason,) = measured(wrong, bundle, rows, 0.005)
    found = re.fullmatch(r"the given rows: accuracy (0\.\d{4}), present ([01]\.\d{4}), tolerance 0\.005", reason)
    assert found
    assert float(found[1]) < 0.3 < 0.6 < float(found[2])
    assert measured(bundle, wrong, rows, 0.005) == []
    assert measured(wrong, bundle, rows, 1.0) == []


def test_rows_that_a_bundle_does_not_know_are_named(bundle: Bundle, rows: list[Example], tmp_path: Path) -> None:
    label = bundle.manifest.labels[0]
    other = Bundle(variant(bundle, tmp_path, labels=("zebras", *bundle.manifest.labels[1:])))
    strange = f"the rows have labels that {other.version} does not know: [{label!r}]"
    lost = "it lacks the labels [{!r}], which clients would lose"
    assert measured(other, bundle, rows, 0.005) == [lost.format(label), strange]


def test_rows_of_new_products_count_for_neither(
    bundle: Bundle, wrong: Bundle, rows: list[Example], tmp_path: Path
) -> None:
    new, *known = bundle.manifest.labels
    present = Bundle(variant(bundle, tmp_path, labels=("zebras", *known)))
    lost = "it lacks the labels ['zebras'], which clients would lose"
    assert measured(bundle, present, rows, 0.005) == [lost]
    without = [row for row in rows if row.product != new]
    worse = measured(wrong, present, rows, 0.005)
    assert worse == measured(wrong, present, without, 0.005)
    assert worse[0] == lost
    assert worse[1].startswith("the given rows: accuracy")
    nothing = f"the rows tell nothing: {present.version} knows none of their products"
    assert measured(bundle, present, [row for row in rows if row.product == new], 0.005) == [lost, nothing]


def test_rows_without_a_product_tell_nothing(bundle: Bundle, wrong: Bundle, rows: list[Example]) -> None:
    for few in ([], [row for row in rows if row.product == OUT_OF_SCOPE]):
        told = ["the rows tell nothing: none of them has a product as its label"]
        assert measured(wrong, bundle, few, 0.005) == against(wrong, None, examples=few) == told


@pytest.mark.parametrize("damage", ["folder", "file", "text.onnx", "context.npz", "manifest.json", "version"])
def test_nothing_speaks_for_a_present_bundle_that_is_gone_or_damaged(
    bundle: Bundle, wrong: Bundle, rows: list[Example], tmp_path: Path, damage: str
) -> None:
    present = copied(bundle, tmp_path)
    candidate = Bundle(variant(wrong, tmp_path, metrics={}))
    assert against(candidate, present)
    if damage in ("folder", "file"):
        present.rename(tmp_path / "elsewhere")
        if damage == "file":
            present.write_text("in its place")
    elif damage == "version":
        manifest = present / "manifest.json"
        manifest.write_text(manifest.read_text().replace(bundle.version, "0" * 12))
    else:
        (present / damage).write_bytes((present / damage).read_bytes()[:-9])
    assert against(candidate, present) == against(candidate, present, examples=rows) == []


def test_a_present_bundle_of_other_preprocessing_is_compared_by_its_figures(
    bundle: Bundle, rows: list[Example], tmp_path: Path
) -> None:
    present = variant(bundle, tmp_path, fingerprint="0123456789abcdef", metrics={"clear": figures(0.8)})
    candidate = Bundle(variant(bundle, tmp_path, metrics={"clear": figures(0.7)}))
    assert against(candidate, present) == ["clear: accuracy 0.7000, present 0.8000, tolerance 0.005"]
    (reason,) = against(candidate, present, examples=rows)
    assert reason.startswith(f"they cannot be measured on the same rows: {present}: trained with preprocessing 0123")


def test_a_candidate_whose_network_does_not_fit_its_labels_is_told(
    bundle: Bundle, rows: list[Example], tmp_path: Path
) -> None:
    candidate = Bundle(variant(bundle, tmp_path, labels=(*bundle.manifest.labels, "zebras")))
    with pytest.raises(BundleError, match="the labels need"):
        measured(candidate, bundle, rows, 0.005)
    (reason,) = against(candidate, bundle.path, examples=rows)
    assert "the labels need" in reason
