"""Whether answers are right: each equals the offline answer for its text and its features.

The bundle's own parts compute it, one message at a time, without a service, batches or caches; and the features
must be those that the store holds.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.schema import UserFeatures
from features.store import FeatureStore, connect
from models.calibrate import out_of_scope_score
from models.context import Floats, probabilities
from models.registry import Registry

TOLERANCE = 1e-4
SHOWN = 5


@dataclass(slots=True)
class Verdict:
    """What came of checking answers."""

    checked: int = 0
    mismatches: int = 0
    degraded: int = 0
    """Answers without all features: right by those they had, but not what was asked for."""
    refused: int = 0
    """Answers with another status than 200, and connections that ended without one."""
    examples: list[str] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        self.checked += other.checked
        self.mismatches += other.mismatches
        self.degraded += other.degraded
        self.refused += other.refused
        self.examples = [*self.examples, *other.examples][:SHOWN]


class Offline:
    """Checks answers against a bundle, a store and the desks.

    Args:
        users: what the store holds, by user; those that are not listed are not compared.
        desks: product to desk; a product that is not listed has the desk of its own name.
    """

    def __init__(self, users: Mapping[str, UserFeatures], desks: Mapping[str, str], model: str = "production") -> None:
        self._desks = desks
        self._bundle = Registry().load(model)
        self._classifier = self._bundle.classifier()
        self._users = users
        self._logits: dict[str, Floats] = {}

    def check(self, answers: Iterable[tuple[str, int, bytes]]) -> Verdict:
        """Check (request body, status, answer body) of each; status 0 is no answer."""
        verdict = Verdict()
        for sent, status, received in answers:
            if status != 200:
                verdict.refused += 1
                continue
            request, answer = json.loads(sent), json.loads(received)
            verdict.checked += 1
            verdict.degraded += bool(answer["degraded"])
            wrong = self.wrong(request, answer)
            if wrong:
                verdict.mismatches += 1
                verdict.examples = [*verdict.examples, f"{request['user_id']}: {wrong}"][:SHOWN]
        return verdict

    def wrong(self, request: dict[str, Any], answer: dict[str, Any]) -> str | None:
        """What is wrong with an answer, in words; None if nothing is."""
        labels = self._bundle.manifest.labels
        features = answer["features"]
        held = self._users.get(request["user_id"])
        if held and not answer["degraded"] and features != _shown(held):
            return f"has features {features}, the store {_shown(held)}"
        p = self._probabilities(request["text"], features)
        if answer["product"] not in labels:
            return f"unknown product {answer['product']!r}"
        column, best = labels.index(answer["product"]), int(p.argmax())
        if p[column] < p[best] - TOLERANCE / 10:
            return f"says {answer['product']}, offline {labels[best]}"
        if abs(answer["confidence"] - p[column]) > TOLERANCE:
            return f"says {answer['confidence']}, offline {p[column]:.5f}"
        actions = self._actions(request["text"], answer["product"], float(p[column]))
        if answer["action"] not in actions:
            return f"does {answer['action']}, offline {actions}"
        return None

    def _actions(self, text: str, product: str, confidence: float) -> list[dict[str, str]]:
        """What may be done with a message: one thing, or either where a figure is at its threshold."""
        manifest = self._bundle.manifest
        logits, products = self._text_logits(text), len(manifest.labels)
        out_of_scope = float(out_of_scope_score(logits, products, manifest.temperature)[0])
        margin = min(confidence - manifest.confidence_threshold, manifest.out_of_scope_threshold - out_of_scope)
        route = {"type": "route", "desk": self._desks.get(product, product)}
        general = {"type": "general_queue", "desk": "general"}
        return [route] * (margin >= -TOLERANCE) + [general] * (margin <= TOLERANCE)

    def _text_logits(self, text: str) -> Floats:
        """(1, outputs) of one message."""
        if text not in self._logits:
            self._logits[text] = self._classifier(self._bundle.preprocessor.tokens([text]))
        return self._logits[text]

    def _probabilities(self, text: str, features: dict[str, Any]) -> Floats:
        """(products,) of one message."""
        manifest = self._bundle.manifest
        context = self._bundle.preprocessor.context(features["recent_screens"], features["product_usage_60d"])
        p = probabilities(self._text_logits(text), self._bundle.context.logits([context]), manifest.temperature)
        return np.asarray(p[0, : len(manifest.labels)], dtype=np.float32)


def held_by(redis_url: str, users: Sequence[str]) -> dict[str, UserFeatures]:
    """What the store holds of each user."""

    async def read() -> list[UserFeatures]:
        redis = connect(redis_url, 10.0)
        try:
            return await FeatureStore(redis).read(users)
        finally:
            await redis.aclose()

    return dict(zip(users, asyncio.run(read()), strict=True))


def _shown(features: UserFeatures) -> dict[str, Any]:
    return {
        "recent_screens": list(features.recent_screens),
        "product_usage_60d": dict(features.product_usage_60d),
    }
