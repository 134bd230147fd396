"""FastAPI on uvicorn, one worker process a core: the same model, features and answers as the graph, by hand.

    REDIS_URL=… python -m uvicorn --factory loadtests.baseline.app:build --workers 2 --loop uvloop --http httptools

The model, the preprocessing and the store are the project's own, so that only the service differs. Features are
read in one pipelined round trip while the text is classified. `TEXT_CACHE` (entries, default 0: none) puts an LRU
cache of each worker's own in front of the text part. `INFERENCE=inline` classifies on the event loop rather than in
a thread beside it: fewer switches between threads, but nothing else moves in the meantime.
"""

import asyncio
import gc
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import numpy as np
import yaml
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError

from features.schema import UserFeatures
from features.store import FeatureStore, connect
from models.bundle import Bundle
from models.calibrate import out_of_scope_share
from models.context import Floats, probabilities, softmax
from models.registry import Registry

CONFIG = Path(__file__).resolve().parents[2] / "serve_config.yaml"
REDIS_TIMEOUT_S = 2.0
"""As long as the graph lets a client wait: a time-out that the load itself sets off would make answers cheaper."""
MAX_CONNECTIONS = 1024
"""To Redis: more than requests are ever on their way, and the client's own limit of 100 would turn them away."""
GC_THRESHOLDS = (20_000, 20, 20)
"""As in the graph's processes."""
Identifier = Annotated[str, Field(min_length=1, max_length=128)]


class Message(BaseModel):
    """A chat message to classify."""

    model_config = ConfigDict(extra="forbid")

    user_id: Identifier
    text: Annotated[str, Field(min_length=1, max_length=4000)]
    request_id: Identifier | None = None
    top_k: int = Field(default=3, ge=1, le=100)


class Lru:
    """Text logits of the texts that were asked for most recently."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._logits: OrderedDict[str, Floats] = OrderedDict()

    def get(self, text: str) -> Floats | None:
        logits = self._logits.get(text)
        if logits is not None:
            self._logits.move_to_end(text)
        return logits

    def put(self, text: str, logits: Floats) -> None:
        self._logits[text] = logits
        if len(self._logits) > self._entries:
            self._logits.popitem(last=False)

    def __len__(self) -> int:
        return len(self._logits)


class Service:
    """The work behind the route."""

    def __init__(
        self, bundle: Bundle, store: FeatureStore, desks: Mapping[str, str], cache_entries: int, inline: bool = False
    ) -> None:
        self._bundle, self._store, self._desks = bundle, store, desks
        self._classifier = bundle.classifier()
        self._cache = Lru(cache_entries)
        self._inline = inline
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def predict(self, message: Message) -> dict[str, Any]:
        """The answer's fields, as the graph names them."""
        known = self._cache.get(message.text)
        if known is None:
            features, logits = await asyncio.gather(self._features(message.user_id), self._logits(message.text))
            self._cache.put(message.text, logits)
        else:
            features, logits = await self._features(message.user_id), known
        user, degraded = features
        return self._decide(message, user, logits) | {"cached": known is not None, "degraded": degraded}

    async def _features(self, user_id: str) -> tuple[UserFeatures, list[str]]:
        try:
            return (await self._store.read([user_id]))[0], []
        except (RedisError, OSError, TimeoutError):
            return UserFeatures(), ["recent_screens", "product_usage_60d"]

    async def _logits(self, text: str) -> Floats:
        if self._inline:
            await asyncio.sleep(0)  # the request for the features leaves first
            return self._classify(text)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._classify, text)

    def _classify(self, text: str) -> Floats:
        return self._classifier(self._bundle.preprocessor.tokens([text]))

    def _decide(self, message: Message, user: UserFeatures, logits: Floats) -> dict[str, Any]:
        manifest = self._bundle.manifest
        labels, temperature = manifest.labels, manifest.temperature
        screens, usage = user.recent_screens, user.product_usage_60d
        context = self._bundle.context.logits([self._bundle.preprocessor.context(screens, usage)])
        p = probabilities(logits, context, temperature)[0]
        by_words, shift = softmax(logits, temperature), context[0] / temperature
        words, out_of_scope = by_words[0], out_of_scope_share(by_words, len(labels))[0]
        columns = np.argsort(-p[: len(labels)], kind="stable")[: message.top_k].tolist()
        best = columns[0]
        routed = manifest.routes(p[best], out_of_scope)
        desk = self._desks.get(labels[best], labels[best])
        return {
            "request_id": message.request_id or uuid4().hex,
            "product": labels[best],
            "confidence": round(float(p[best]), 4),
            "action": {"type": "route", "desk": desk} if routed else {"type": "general_queue", "desk": "general"},
            "top": [{"product": labels[c], "confidence": round(float(p[c]), 4)} for c in columns],
            "evidence": {
                "text": {labels[c]: round(float(words[c]), 4) for c in columns},
                "context": {labels[c]: round(float(shift[c]), 4) for c in columns},
            },
            "features": {"recent_screens": screens, "product_usage_60d": usage},
            "model_version": manifest.version,
            "preprocessing": manifest.fingerprint,
        }


def build() -> FastAPI:
    """The application of one worker, its model warm."""
    gc.set_threshold(*GC_THRESHOLDS)
    applications = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["applications"]
    desks = next(a["args"]["desks"] for a in applications if a["name"] == "switchboard")
    redis = connect(os.environ["REDIS_URL"], REDIS_TIMEOUT_S, max_connections=MAX_CONNECTIONS)
    entries = int(os.environ.get("TEXT_CACHE", "0"))
    inline = os.environ.get("INFERENCE") == "inline"
    return application(Service(Registry().load("production"), FeatureStore(redis), desks, entries, inline))


def application(service: Service) -> FastAPI:
    """The routes."""

    @asynccontextmanager
    async def warm(app: FastAPI) -> AsyncIterator[None]:
        await service.predict(Message(user_id="warm-up", text="hello, is this thing on"))
        gc.collect()
        gc.freeze()
        yield

    app = FastAPI(title="Switchboard by hand", lifespan=warm)

    @app.post("/v1/predict")
    async def predict(message: Message) -> Response:
        return Response(msgspec.json.encode(await service.predict(message)), media_type="application/json")

    @app.get("/healthz/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app
