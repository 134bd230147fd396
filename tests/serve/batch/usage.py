"""A small usage log, and what its runs leave in Redis."""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

from features.batch import Window, materialize
from features.store import FeatureStore, connect
from features.usage_writer import UsageWriter
from tests.unit.event_logs import Use

AS_OF = date(2026, 11, 1)
DAYS = 3
WINDOW = Window(AS_OF, DAYS)
STRANGE = {"a b": "x:y", "\r\n*1": "$3\r\nabc\r\n", "{u}": "{}", "ß€😀": "Ünï", "\0": "\0\0"}
USES: dict[int, list[Use]] = {
    3: [("u1", "a"), ("u1", "a"), ("u1", "b"), ("gone", "a")],
    2: [("u1", "a"), ("u2", "c"), *STRANGE.items()],
    1: [("u2", "c"), ("u3", "a")],
}
"""What happened so many days before AS_OF."""


def run(log: Path, writer: UsageWriter, window: Window = WINDOW, **options: Any) -> dict[str, Any]:
    return materialize(log, window, writer, progress=False, **options)


def seen(url: str, *users: str) -> list[dict[str, int]]:
    """What readers see."""

    async def read() -> list[dict[str, int]]:
        redis = connect(url, 60.0)
        features = await FeatureStore(redis).read(users)
        await redis.aclose()
        return [dict(user.product_usage_60d) for user in features]

    return asyncio.run(read())
