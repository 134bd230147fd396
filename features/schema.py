"""Events and features as they are exchanged; the names of fields and streams are part of the public interface."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

SCREEN_STREAM = "events:screens"
FEEDBACK_STREAM = "events:feedback"
MAX_IDENTIFIER = 128
"""Maximum length of an identifier in characters."""
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_IDENTIFIER)]
Product = Annotated[Identifier, msgspec.Meta(pattern=r"\S")]
"""A label; like training, it refuses white space only."""
MAX_AHEAD = timedelta(minutes=5)
"""How far in the future an event's time may be."""
_EPOCH = datetime.fromtimestamp(0, UTC)
UNDECODABLE = "\ufffd"


def rfc3339(moment: datetime, timespec: str = "microseconds") -> str:
    """A time in RFC 3339: UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


class ScreenEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user saw a screen of the app at the time `at`, RFC 3339 with an offset."""

    event_id: Identifier
    user_id: Identifier
    screen: Identifier
    at: Annotated[datetime, msgspec.Meta(tz=True)]

    def fields(self) -> dict[str, str]:
        """The fields of the stream entry. `at` is in UTC, and not before 1970."""
        at = rfc3339(max(self.at, _EPOCH))
        return {"event_id": self.event_id, "user_id": self.user_id, "screen": self.screen, "at": at}


def undecodable(fields: Mapping[str, str]) -> str | None:
    """The name of the first field with U+FFFD, by which the client replaces invalid UTF-8; None if there is none."""
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
    """The features of one user at one moment. Screens are oldest first."""

    recent_screens: tuple[str, ...] = ()
    product_usage_60d: Mapping[str, int] = field(default_factory=dict)
