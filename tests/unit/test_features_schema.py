"""Screen events as they travel: what is refused names its field."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.schema import MAX_AHEAD, ScreenEvent, screen_event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS = {"event_id": "e1", "user_id": "u1", "screen": "card_home", "at": "2026-03-01T11:59:58.5Z"}

identifiers = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1, max_size=128)
moments = st.datetimes(
    min_value=datetime(1971, 1, 1),
    max_value=datetime(2026, 2, 27),
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


def test_entry_becomes_an_event() -> None:
    at = datetime(2026, 3, 1, 11, 59, 58, 500_000, tzinfo=UTC)
    assert screen_event(FIELDS, NOW) == ScreenEvent("e1", "u1", "card_home", at)


@given(identifiers, identifiers, identifiers, moments)
def test_event_survives_the_wire(event_id: str, user_id: str, screen: str, at: datetime) -> None:
    event = ScreenEvent(event_id, user_id, screen, at)
    fields = event.fields()
    assert fields["at"].endswith("Z")
    assert screen_event(fields, NOW) == event


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"event_id": ""}, "event_id"),
        ({"user_id": "u" * 129}, "user_id"),
        ({"screen": "\ufffdhome"}, "screen: not UTF-8"),
        ({"colour": "red"}, "colour"),
        ({"at": ""}, "at"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-03-01"}, "at"),
        ({"at": "2026-03-01T11:59:58"}, "at"),
        ({"at": "1772366398"}, "at"),
        ({"at": "2026-03-01T12:05:00.000001Z"}, "at: 2026-03-01T12:05:00.000001Z lies in the future"),
        ({"at": "9999-12-31T23:59:59-05:00"}, "lies in the future"),
    ],
)
def test_ill_formed_entry_is_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        screen_event({**FIELDS, **change}, NOW)


@pytest.mark.parametrize("missing", sorted(FIELDS))
def test_missing_field_is_refused_by_name(missing: str) -> None:
    with pytest.raises(ValueError, match=f"`{missing}`"):
        screen_event({name: value for name, value in FIELDS.items() if name != missing}, NOW)


def test_a_clock_may_be_five_minutes_fast() -> None:
    at = NOW + MAX_AHEAD
    assert screen_event({**FIELDS, "at": at.isoformat()}, NOW).at == at


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+05:00", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+00:00"])
def test_any_moment_before_1970_travels_as_1970(at: str) -> None:
    assert screen_event({**FIELDS, "at": at}, NOW).fields()["at"] == "1970-01-01T00:00:00.000000Z"
