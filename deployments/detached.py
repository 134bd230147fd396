"""Tasks that belong to no request."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def detached(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task in an empty context, since Ray cancels the calls made in the context of a request that is cancelled."""
    return asyncio.get_running_loop().create_task(coroutine, context=Context())
