"""How the model behaves: minimum functionality, invariance and direction (Ribeiro et al., 2020, CheckList)."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from models.augment import typo
from models.bundle import Bundle
from models.calibrate import auroc, out_of_scope_score
from models.data import Example
from models.evaluate import score
from tests.model.conftest import Ask
from tests.model.messages import AMBIGUOUS, CLEAR, OUTSIDE

SCREENS = {
    "credit_card": "card_limit",
    "checking_account": "account_atm_map",
    "savings_account": "savings_goal",
    "transfers": "transfer_send",
    "bill_payments": "bills_scan",
    "loans": "loan_installments",
    "investments": "invest_order",
    "insurance": "insurance_claim",
    "security": "login_reset",
}
ROWS = [(text, product) for product, texts in CLEAR.items() for text in texts]


def answers(ask: Ask, bundle: Bundle, examples: list[Example]) -> list[str]:
    return [bundle.manifest.labels[i] for i in ask(examples).argmax(axis=1)]


@pytest.mark.parametrize("product", sorted(CLEAR))
def test_simple_messages_are_right(ask: Ask, bundle: Bundle, product: str) -> None:
    given = answers(ask, bundle, [Example(text, product) for text in CLEAR[product]])
    assert given.count(product) >= len(given) - 1, list(zip(CLEAR[product], given, strict=True))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (str.upper, 1.0),
        (lambda text: f"hello, {text} please, thank you", 0.9),
        (lambda text: f"{text} \U0001f62d\U0001f64f", 0.9),
        (lambda text: f"  {text}\u200b!!!", 0.95),
        (lambda text: typo(text, random.Random(text)), 0.85),
    ],
    ids=["case", "politeness", "emojis", "invisible characters", "a typo"],
)
def test_the_answer_survives(ask: Ask, bundle: Bundle, change: Callable[[str], str], kept: float) -> None:
    before = answers(ask, bundle, [Example(text, product) for text, product in ROWS])
    after = answers(ask, bundle, [Example(change(text), product) for text, product in ROWS])
    same = np.mean([a == b for a, b in zip(before, after, strict=True)])
    assert same >= kept


@pytest.mark.parametrize("product", sorted(SCREENS))
def test_a_products_screen_never_lowers_the_product(ask: Ask, bundle: Bundle, product: str) -> None:
    column = bundle.manifest.labels.index(product)
    screen = SCREENS[product]
    for seen in ((), ("home",), ("card_home", "transfer_limits"), ("invest_home",) * 4):
        without = ask([Example(text, product, seen) for text, _ in ROWS])[:, column]
        with_it = ask([Example(text, product, (*seen, screen)) for text, _ in ROWS])[:, column]
        assert (with_it >= without - 1e-6).all()


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_screens_settle_what_words_leave_open(ask: Ask, bundle: Bundle, text: str) -> None:
    products = ["credit_card", "transfers", "loans", "insurance"]
    rows = [Example(text, product, ("home", SCREENS[product])) for product in products]
    given = answers(ask, bundle, rows)
    assert sum(a == b for a, b in zip(given, products, strict=True)) >= 3, given


def test_clear_words_win_over_a_misleading_screen(ask: Ask, bundle: Bundle) -> None:
    products = sorted(SCREENS)
    rows = [
        (Example(text, product, ("home", SCREENS[other])), product)
        for text, product in ROWS
        for other in products
        if other != product
    ]
    given = answers(ask, bundle, [example for example, _ in rows])
    assert np.mean([a == product for a, (_, product) in zip(given, rows, strict=True)]) >= 0.85


def test_out_of_scope_messages_stand_out(bundle: Bundle) -> None:
    classifier = bundle.classifier()
    inside = score(bundle, classifier, [Example(text, product) for text, product in ROWS]).text
    outside = score(bundle, classifier, [Example(text, "loans") for text in OUTSIDE]).text
    k, temperature = len(bundle.manifest.labels), bundle.manifest.temperature
    strange = [out_of_scope_score(logits, k, temperature) for logits in (outside, inside)]
    assert auroc(*strange) >= 0.95
