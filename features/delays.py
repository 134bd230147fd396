"""Assumed delays, for what is not recorded: when a run was published, and when an event was stored."""

from datetime import timedelta

RUN_DELAY = timedelta(hours=3)
"""A day's run is available this long after 00:00 UTC; a message before that sees the previous run."""
MAX_RUN_DELAY = timedelta(days=30)
LAG = timedelta(seconds=1)
"""The longest time from a screen event's arrival to its storage."""
MAX_LAG = timedelta(days=1)
