"""Events and features as they travel; wire names are part of the public interface."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

SCREEN_STREAM = "events:screens"
FEEDBACK_STREAM = "events:feedback"
MAX_IDENTIFIER = 128
"""Characters."""
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_IDENTIFIER)]
Product = Annotated[Identifier, msgspec.Meta(pattern=r"\S")]
"""A label: training refuses one of blanks only."""
MAX_AHEAD = timedelta(minutes=5)
_EPOCH = datetime.fromtimestamp(0, UTC)
UNDECODABLE = "\ufffd"


def rfc3339(moment: datetime, timespec: str = "microseconds") -> str:
    """A moment as it travels: UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


class ScreenEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user saw a screen of the app. `at` is when, RFC 3339 with an offset."""

    event_id: Identifier
    user_id: Identifier
    screen: Identifier
    at: Annotated[datetime, msgspec.Meta(tz=True)]

    def fields(self) -> dict[str, str]:
        """The fields of the stream entry; `at` in UTC, and at the earliest 1970, which is as old as any before."""
        at = rfc3339(max(self.at, _EPOCH))
        return {"event_id": self.event_id, "user_id": self.user_id, "screen": self.screen, "at": at}


def undecodable(fields: Mapping[str, str]) -> str | None:
    """The first field that holds U+FFFD, which a decoder puts in the place of bytes that are no UTF-8."""
    return next((name for name, value in fields.items() if UNDECODABLE in value), None)


def screen_event(fields: Mapping[str, str], now: datetime) -> ScreenEvent:
    """Parse a stream entry.

    Raises:
        ValueError: naming the field that is missing, unknown, ill-formed, or more than five minutes ahead.
    """
    if (name := undecodable(fields)) is not None:
        raise ValueError(f"{name}: not UTF-8")
    try:
        event = msgspec.convert(dict(fields), ScreenEvent)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if event.at > now + MAX_AHEAD:
        raise ValueError(f"at: {fields['at']} lies in the future")
    return event


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """What the stores know of one user at one moment. Screens are oldest first."""

    recent_screens: tuple[str, ...] = ()
    product_usage_60d: Mapping[str, int] = field(default_factory=dict)
