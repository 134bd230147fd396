"""What a run has in Redis, whoever wrote it."""

import json

from redis import Redis

from features.usage import shard_key
from tests.unit.event_logs import Uses


def stored(client: Redis, run: str) -> Uses:
    """The values of all users of a run, through a client that decodes."""
    pipe = client.pipeline(transaction=False)
    for key in client.scan_iter(shard_key(run, "*"), count=10_000):
        pipe.hgetall(key)
    return {user: json.loads(value) for users in pipe.execute() for user, value in users.items()}
