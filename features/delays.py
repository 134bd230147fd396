"""How long after the fact events and runs are taken to be there, where their arrival was not recorded."""

from datetime import timedelta

RUN_DELAY = timedelta(hours=3)
"""When a day's run is there: this long after the day began, UTC. A message sent before that sees the run before."""
MAX_RUN_DELAY = timedelta(days=30)
LAG = timedelta(seconds=1)
"""Within which an arriving screen gets stored."""
MAX_LAG = timedelta(days=1)
