"""Product usage in Redis: a JSON object for each user under a run, product to uses in the last 60 days.

A value and its time to live are one `SET`, so a writer that dies leaves none that never expires, and reading one parses
one reply, however many products it has.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec

RUN_KEY = "usage:run"
"""Holds the run that readers see."""
TTL_S = 3 * 86400
"""How long values live where nobody says otherwise, in seconds."""
MOST = 10**9 - 1
"""The largest use that counts: one a second for sixty days has seven digits. What serves and keeps it holds no more."""
_RUN = re.compile(r"(\d{4}-\d{2}-\d{2})-(\d+)d-[0-9a-f]{8}")
_decoder = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(ge=0, le=MOST)]])


def usage_key(run: str, user: str) -> str:
    """Where a user's uses by product are under a run."""
    return f"usage:{run}:{user}"


def run_window(run: str) -> tuple[date, int] | None:
    """The day before which the window of a run ends, and its days; None for runs that `materialize` did not make."""
    match = _RUN.fullmatch(run)
    try:
        return (date.fromisoformat(match[1]), int(match[2])) if match else None
    except ValueError:
        return None


def encode(uses: Mapping[str, int]) -> bytes:
    """Uses by product as a value in Redis."""
    return msgspec.json.encode(uses)


def decode(value: str | None) -> dict[str, int]:
    """What counts of a value in Redis: nothing if there is none or it is no object; of an object, uses up to `MOST`."""
    if not value:
        return {}
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return {product: n for product, n in _object(value).items() if type(n) is int and 0 <= n <= MOST}


def _object(value: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(value, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
