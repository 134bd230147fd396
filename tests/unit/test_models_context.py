"""The context part: bounded, zero without a store, and never against the product that it speaks for."""

from dataclasses import replace
from pathlib import Path
from pickle import PicklingError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.preprocess import ContextInput
from models.context import ContextHead, Floats, probabilities, softmax

OUTPUTS = 4
LABELS = ("card", "loans", "savings")
weights = st.floats(0, 6, width=32)
text_logits = st.lists(st.floats(-8, 8, width=32), min_size=OUTPUTS, max_size=OUTPUTS)


@st.composite
def heads(draw: st.DrawFn, *, alike: bool = False) -> ContextHead:
    """A head over three products and an out-of-scope column; screen `s0`, `s1`, … speaks for its arg-max.

    Args:
        alike: screens of a product say the same, and nothing about other products.
    """
    rows = np.zeros((draw(st.integers(1, 6)), OUTPUTS), np.float32)
    strength = [draw(st.floats(0.125, 6, width=32)) for _ in LABELS]
    for row in rows:
        owner = draw(st.integers(0, 2))
        row[:3] = 0.0 if alike else [draw(weights) for _ in LABELS]
        row[owner] = strength[owner] if alike else max(row)
    scalars = [draw(st.floats(0, 1)), draw(st.floats(0, 2)), draw(st.floats(0, 8)), draw(st.floats(0.5, 8))]
    return ContextHead(LABELS, tuple(f"s{i}" for i in range(len(rows))), rows, *scalars)


@st.composite
def contexts(draw: st.DrawFn) -> ContextInput:
    screens = draw(st.lists(st.sampled_from(["s0", "s1", "s2", "s3", "unknown"]), max_size=5))
    usage = draw(st.dictionaries(st.sampled_from([*LABELS, "unknown"]), st.integers(1, 1000)))
    return ContextInput(tuple(screens), usage)


def one(head: ContextHead, context: ContextInput) -> Floats:
    """(outputs,) context logits of one context."""
    row: Floats = head.logits([context])[0]
    return row


def chance(head: ContextHead, text: list[float], context: ContextInput, column: int) -> float:
    return float(probabilities(np.array([text], np.float32), head.logits([context]), 1.3)[0, column])


def owner_of(head: ContextHead, screen: str) -> int:
    return int(head.screens[head.screen_names.index(screen)].argmax())


@given(heads(), contexts())
def test_logits_are_between_zero_and_the_cap_and_nothing_adds_zero(head: ContextHead, context: ContextInput) -> None:
    nothing, unknown = ContextInput((), {}), ContextInput(("unknown",), {"unknown": 9})
    assert not head.logits([nothing, unknown]).any()
    assert not ContextHead.empty(LABELS, OUTPUTS).logits([context]).any()
    logits = one(head, context)
    assert (logits >= 0).all()
    assert (logits <= np.float32(head.cap) + 1e-6).all()
    assert logits[3] == 0


@given(heads(), text_logits, st.data())
def test_first_screen_of_a_product_never_lowers_its_probability(
    head: ContextHead, text: list[float], data: st.DataObject
) -> None:
    screen = data.draw(st.sampled_from(head.screen_names))
    column = owner_of(head, screen)
    before = chance(head, text, ContextInput((), {}), column)
    assert chance(head, text, ContextInput((screen,), {}), column) >= before - 1e-6


@given(heads(alike=True), text_logits, contexts(), st.data())
def test_one_more_screen_of_a_product_never_lowers_its_probability(
    head: ContextHead, text: list[float], context: ContextInput, data: st.DataObject
) -> None:
    screen = data.draw(st.sampled_from(head.screen_names))
    column = owner_of(head, screen)
    more = ContextInput((*context.recent_screens, screen)[-5:], context.product_usage_60d)
    assert chance(head, text, more, column) >= chance(head, text, context, column) - 1e-6


@given(heads(), contexts(), st.data())
def test_an_older_screen_never_lowers_a_logit(head: ContextHead, context: ContextInput, data: st.DataObject) -> None:
    screen = data.draw(st.sampled_from(head.screen_names))
    more = ContextInput((screen, *context.recent_screens), context.product_usage_60d)
    assert (one(head, more) >= one(head, context) - 1e-5).all()


@given(heads(), text_logits, contexts(), st.sampled_from(LABELS), st.integers(1, 100))
def test_more_uses_of_a_product_never_lower_its_probability(
    head: ContextHead, text: list[float], context: ContextInput, product: str, uses: int
) -> None:
    usage = {**context.product_usage_60d, product: context.product_usage_60d.get(product, 0) + uses}
    more, column = ContextInput(context.recent_screens, usage), LABELS.index(product)
    assert chance(head, text, more, column) >= chance(head, text, context, column) - 1e-6


@given(heads(), contexts())
def test_round_trip_through_a_file(
    tmp_path_factory: pytest.TempPathFactory, head: ContextHead, context: ContextInput
) -> None:
    path = tmp_path_factory.mktemp("head") / "context.npz"
    for saved in (head, ContextHead.empty(LABELS, OUTPUTS)):
        saved.save(path)
        loaded = ContextHead.load(path)
        assert (loaded.labels, loaded.screen_names, loaded.cap) == (saved.labels, saved.screen_names, saved.cap)
        assert np.array_equal(one(loaded, context), one(saved, context))


def test_a_file_that_could_not_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path, head = tmp_path / "context.npz", ContextHead.empty(LABELS, OUTPUTS)
    head.save(path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, PicklingError)):
        replace(head, cap=2.0, screens=np.array([lambda: 0], dtype=object)).save(path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("context.npz", before)]


def test_formula() -> None:
    head = ContextHead(("card", "loans"), ("limit", "pay"), np.array([[2, 0], [0, 1]], np.float32), 0.5, 0.3, 4.0, 3.0)
    context = ContextInput(("limit", "unknown", "pay", "limit"), {"loans": 3, "card": 1})
    raw = np.array([2 + 2 * 0.5**3 + 0.3 * np.log(2) + 4 * 1 / 4, 0.5 + 0.3 * np.log(4) + 4 * 3 / 4])
    assert one(head, context) == pytest.approx(3 * np.tanh(raw / 3), rel=1e-5)


@given(st.lists(text_logits, min_size=1, max_size=4), st.floats(0.2, 5))
def test_probabilities_add_up_to_one(rows: list[list[float]], temperature: float) -> None:
    p = probabilities(np.array(rows, np.float32), np.zeros((len(rows), OUTPUTS), np.float32), temperature)
    assert p.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    order = np.argsort(np.array(rows, np.float32), axis=1)
    assert (np.diff(np.take_along_axis(p, order, axis=1), axis=1) >= 0).all()


def test_softmax_is_stable_and_flattened_by_temperature() -> None:
    assert softmax(np.array([[1000, 0]], np.float32))[0] == pytest.approx([1, 0])
    assert softmax(np.array([[1, 0]], np.float32), 2.0)[0, 0] == pytest.approx(1 / (1 + np.exp(-0.5)))


@given(heads(), st.lists(contexts(), min_size=1, max_size=5))
def test_a_context_is_the_same_in_any_company(head: ContextHead, batch: list[ContextInput]) -> None:
    np.testing.assert_allclose(head.logits(batch), [one(head, context) for context in batch], rtol=1e-5, atol=1e-6)
