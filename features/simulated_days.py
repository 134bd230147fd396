"""Simulated days: the usage log of each, and one day's messages with the screens before them."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.journeys import SCREEN_NAMES, Texts, draw, draw_texts
from features.population import PRODUCT_NAMES, Population, Stream, generator
from features.schema import rfc3339

DAY_US = 86_400_000_000
WEEK = (1.1, 1.1, 1.1, 1.1, 1.15, 0.8, 0.65)
"""Activity on Monday to Sunday; the mean is 1."""
HOURS = (2, 1, 1, 1, 1, 2, 5, 9, 12, 13, 13, 13, 14, 13, 12, 12, 12, 13, 14, 14, 12, 9, 6, 4)
"""Activity by hour of the day, UTC."""
REDELIVERED = 0.002
"""Share of events that are in the log twice with the same id, as with at-least-once delivery."""
LATE = 0.01
"""Share of events that arrive late, by a minute on average; the others take some hundredths of a second."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_Integers = NDArray[np.int64]


def scale_for(people: Population, dates: Iterable[date], events: int) -> float:
    """The factor on all users' activity that gives about `events` events on those days; 0 if nobody owns a product."""
    expected = people.daily_uses()[2].sum() * sum(WEEK[day.weekday()] for day in dates)
    return float(events / expected) if expected else 0.0


def usage_days(
    people: Population, dates: Iterable[date], seed: int, scale: float = 1.0, malformed: float = 0.0
) -> Iterator[tuple[date, pa.Table, dict[str, int]]]:
    """Each day with its usage log, in order of arrival, and counts of its rows: `redelivered`, `malformed`.

    A day depends only on its date, the users, the seed and the scale. Malformed rows have, equally often, no user, an
    empty user, no product, an empty product, no time, or a time that is 1 to 30 days off.
    """
    user, product, uses = people.daily_uses()
    users, products = _vocabulary(people), pa.array([*PRODUCT_NAMES, ""])
    for day in dates:
        rng = generator(seed, Stream.USAGE, day.toordinal())
        which = np.repeat(np.arange(len(uses)), rng.poisson(uses * (scale * WEEK[day.weekday()])))
        rng.shuffle(which)
        at = _times(day, len(which), rng)
        rows, _ = _arrivals(at, rng)
        kind = np.where(rng.random(len(rows)) < malformed, rng.integers(0, 6, len(rows)), -1)
        shift = rng.integers(1, 31, len(rows)) * rng.choice([-DAY_US, DAY_US], len(rows))
        columns = {
            "event_id": _ids(seed, Stream.USAGE, day, len(at)).take(pa.array(rows)),
            "user_id": _take(users, user[which[rows]], kind == 0, kind == 1),
            "product": _take(products, product[which[rows]], kind == 2, kind == 3),
            "at": pa.array(at[rows] + shift * (kind == 5), _TIMESTAMP, mask=kind == 4),
        }
        yield day, pa.table(columns), {"redelivered": len(rows) - len(at), "malformed": int((kind >= 0).sum())}


def conversations(
    people: Population, texts: Texts, day: date, seed: int, messages: int
) -> tuple[list[dict[str, str]], pa.Table, pa.Table]:
    """The messages of a day, oldest first, and screens of the evening before and of the day, in order of arrival.

    Screens of the evening before belong to journeys across midnight. As many other journeys end without a message.
    """
    rng = generator(seed, Stream.JOURNEYS, day.toordinal())
    journeys = draw(people, texts, 2 * messages, rng)
    sent = rng.permutation(_times(day, 2 * messages, rng))
    rows = zip(
        _ids(seed, Stream.JOURNEYS, day, messages).to_pylist(),
        journeys.user[:messages].tolist(),
        sent[:messages].tolist(),
        draw_texts(journeys.product[:messages], texts, rng),
        strict=True,
    )
    chats = [
        {"request_id": request, "user_id": f"u{user + 1}", "at": _rfc3339(at), "text": text, "product": product}
        for request, user, at, (text, product) in rows
    ]
    journey, slot = np.nonzero(journeys.screen >= 0)
    at = sent[journey] - (journeys.before[journey, slot] * 1e6).astype(np.int64)
    eve, today = _screen_log(people, day, seed, journeys.user[journey], journeys.screen[journey, slot], at, rng)
    return sorted(chats, key=lambda chat: chat["at"]), eve, today


def _screen_log(
    people: Population,
    day: date,
    seed: int,
    user: NDArray[np.intp],
    screen: NDArray[np.intp],
    at: _Integers,
    rng: np.random.Generator,
) -> tuple[pa.Table, pa.Table]:
    rows, arrived = _arrivals(at, rng)
    columns = {
        "event_id": _ids(seed, Stream.SCREENS, day, len(at)).take(pa.array(rows)),
        "user_id": _vocabulary(people).take(pa.array(user[rows])),
        "screen": pa.array(SCREEN_NAMES).take(pa.array(screen[rows])),
        "at": pa.array(at[rows], _TIMESTAMP),
        "arrived_at": pa.array(arrived, _TIMESTAMP),
    }
    table, early = pa.table(columns), at[rows] < _midnight(day)
    return table.filter(pa.array(early)), table.filter(pa.array(~early))


def _midnight(day: date) -> int:
    """Midnight at the start of a day, in microseconds since 1970, UTC."""
    return (day - _EPOCH.date()).days * DAY_US


def _rfc3339(at: int) -> str:
    return rfc3339(_EPOCH + timedelta(microseconds=at))


def _times(day: date, n: int, rng: np.random.Generator) -> _Integers:
    """`n` moments of a day in microseconds since 1970, ascending."""
    upto = np.cumsum([0, *HOURS]) / sum(HOURS)
    moments = np.interp(rng.random(n), upto, np.linspace(0, DAY_US, 25)).astype(np.int64)
    return _midnight(day) + np.sort(np.minimum(moments, DAY_US - 1))


def _arrivals(at: _Integers, rng: np.random.Generator) -> tuple[NDArray[np.intp], _Integers]:
    """Deliveries in order of arrival, at least one of each event: the event's row, and the time in microseconds."""
    again = np.flatnonzero(rng.random(len(at)) < REDELIVERED)
    rows = np.concatenate([np.arange(len(at)), again])
    seconds = rng.lognormal(np.log(0.03), 0.7, len(rows))
    seconds += rng.exponential(60, len(rows)) * (rng.random(len(rows)) < LATE)
    seconds[len(at) :] += seconds[again] + rng.exponential(30, len(again))
    arrived = at[rows] + (seconds * 1e6).astype(np.int64)
    order = np.argsort(arrived, kind="stable")
    return rows[order], arrived[order]


def _vocabulary(people: Population) -> pa.Array:
    """All user ids, and an empty text at the end, for `_take`."""
    return pa.array([*(f"u{number}" for number in range(1, len(people) + 1)), ""])


def _take(names: pa.Array, index: NDArray[np.intp], null: NDArray[np.bool_], empty: NDArray[np.bool_]) -> pa.Array:
    """The names at `index`, but null where `null`, and the last name, the empty one, where `empty`."""
    return names.take(pa.array(np.where(empty, len(names) - 1, index), mask=null))


def _ids(seed: int, stream: Stream, day: date, n: int) -> pa.Array:
    """`n` ids of 16 hexadecimal digits; no two of a seed are equal.

    A day's counters are scattered by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), which is a bijection.
    """
    salt = int(generator(seed, Stream.IDS).integers(2**64, dtype=np.uint64))
    start = (salt + (stream << 56) + (day.toordinal() << 32)) % 2**64
    mixed = np.arange(n, dtype=np.uint64) + np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    digits = _HEX[mixed.astype(">u8").view(np.uint8)].reshape(-1)
    offsets = np.arange(n + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))
