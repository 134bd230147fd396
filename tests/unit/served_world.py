"""A small world on a real Redis: screens that arrive, usage runs that are published, requests that are served."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.preprocess import Preprocessor
from features.schema import ScreenEvent, UserFeatures
from features.served_schema import SERVED, context_hash, text_hash
from features.store import FeatureStore, Reading, connect
from tests.unit.offline_world import NOON, Screen, Use

USERS = [f"u{number}" for number in range(8)]
PRODUCTS = ("loans", "security", "insurance")
TEXTS = (
    "it got declined again",
    "why is my LOAN so expensive???",
    "hello",
    "a long story " * 40,
    "card 4111111111111111",
)
MIDNIGHT = NOON.replace(hour=0)
Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """What happened, and when requests were served: at each moment, one for every user."""

    screens: list[Screen]
    uses: list[Use]
    moments: list[datetime]

    @classmethod
    def drawn(cls, seed: int, requests: int) -> "World":
        """Busy users around a midnight; most events arrive at once, some late."""
        rng = random.Random(seed)
        screens = []
        for number in range(150 * len(USERS)):
            at = MIDNIGHT + timedelta(seconds=rng.uniform(-4000, 4000))
            late = timedelta(seconds=rng.choice([0.01, 0.05, 0.3, 90]))
            screens.append(Screen(f"e{number}", rng.choice(USERS), f"screen{rng.randint(0, 5)}", at, at + late))
        screens += [Screen(s.event_id, s.user_id, s.screen, s.at, s.arrived) for s in rng.sample(screens, 20)]
        days = [MIDNIGHT - timedelta(days=rng.uniform(-1, 64)) for _ in range(900)]
        uses = [Use(rng.choice(USERS), rng.choice(PRODUCTS), at) for at in days]
        at_ms = sorted(rng.randint(-1_900_000, 3_900_000) for _ in range(requests // len(USERS)))
        return cls(screens, uses, [MIDNIGHT + timedelta(milliseconds=ms) for ms in at_ms])


async def served(
    world: World,
    url: str,
    preprocessor: Preprocessor,
    runs: Sequence[str | None],
    stored_after: timedelta = timedelta(),
) -> list[Row]:
    """Replay the world on the store, and answer.

    Args:
        runs: published before the first request, and one after the other during the equal parts that follow.
        stored_after: how long the ingester takes.
    """
    now = [0.0]
    redis = connect(url, 60.0)
    store = FeatureStore(redis, clock=lambda: now[0])
    waiting = sorted(world.screens, key=lambda screen: screen.arrived or screen.at)
    rows: list[Row] = []
    for number, moment in enumerate(world.moments):
        run = runs[number * len(runs) // len(world.moments)]
        if run is not None:
            await store.publish_run(run)
        due = [s for s in waiting if (s.arrived or s.at) + stored_after <= moment]
        waiting = waiting[len(due) :]
        await store.write_screens(ScreenEvent(s.event_id, s.user_id, s.screen, s.at) for s in due)
        now[0] = moment.timestamp() + 0.0004
        reading = await store.reading(USERS)
        texts = [TEXTS[(number + i) % len(TEXTS)] for i in range(len(USERS))]
        rows += served_rows(f"r{number}", reading, texts, preprocessor)
    await redis.aclose()
    return rows


def served_rows(name: str, reading: Reading, texts: Sequence[str], preprocessor: Preprocessor) -> list[Row]:
    at = datetime.fromtimestamp(reading.at_ms / 1000, UTC)
    return [
        served_row(f"{name}-{user}", user, features, text, preprocessor)
        | {"answered_at": at, "features_at": at, "usage_run": reading.usage_run}
        for user, features, text in zip(USERS, reading.users, texts, strict=True)
    ]


def served_row(request: str, user: str, features: UserFeatures, text: str, preprocessor: Preprocessor) -> Row:
    """As the service logs it, answered at noon without a run."""
    return {
        "request_id": request,
        "answered_at": NOON,
        "user_id": user,
        "features_at": NOON,
        "usage_run": None,
        "recent_screens": list(features.recent_screens),
        "product_usage_60d": [{"product": p, "uses": n} for p, n in features.product_usage_60d.items()],
        "degraded": [],
        **preprocessed(text, features, preprocessor),
        "model_version": "m1",
        "text_logits": [0.5, -0.5],
        "product": "loans",
        "confidence": 0.9,
        "action": "route",
        "desk": "loans",
        "cached": False,
        "text": text,
    }


def preprocessed(text: str, features: UserFeatures, preprocessor: Preprocessor) -> Row:
    """The columns that preprocessing decides."""
    ids = preprocessor.tokens([text])[0]
    return {
        "tokens": len(ids),
        "unknown_tokens": int(np.count_nonzero(ids == preprocessor.unknown_id)),
        "text_hash": text_hash(ids),
        "context_hash": context_hash(preprocessor.context(features.recent_screens, features.product_usage_60d)),
        "preprocessing": preprocessor.fingerprint,
    }


def write_log(folder: Path, rows: Iterable[Row]) -> Path:
    """Two files a day."""
    days: dict[date, list[Row]] = {}
    for row in rows:
        days.setdefault(row["answered_at"].date(), []).append(row)
    for day, all_rows in days.items():
        target = folder / f"day={day}"
        target.mkdir(parents=True)
        for number, part in enumerate((all_rows[: len(all_rows) // 2], all_rows[len(all_rows) // 2 :])):
            pq.write_table(pa.Table.from_pylist(part, SERVED), target / f"served-{number}.parquet")
    return folder
