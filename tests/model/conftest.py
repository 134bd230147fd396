"""The production bundle, asked directly."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from models.bundle import Bundle
from models.context import Floats, probabilities
from models.data import Example
from models.evaluate import score
from models.registry import Registry

Ask = Callable[[Sequence[Example]], Floats]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Registry().load("production")


@pytest.fixture(scope="session")
def ask(bundle: Bundle) -> Ask:
    """Examples to (n, products) probabilities."""
    classifier = bundle.classifier()

    def answer(examples: Sequence[Example]) -> Floats:
        scores = score(bundle, classifier, examples)
        p = probabilities(scores.text, scores.context, bundle.manifest.temperature)
        return np.asarray(p[:, : len(bundle.manifest.labels)])

    return answer
