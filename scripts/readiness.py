"""Whether what was deployed answers, and why it does not."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray_environment import StartError

_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


def wait_until_ready(
    address: str | None,
    wanted: int,
    say: Callable[[str], None],
    pause: Callable[[float], None],
    timeout_s: float = 240,
) -> None:
    """Return once all wanted applications run, and the one at `address` says that it is ready.

    Raises:
        StartError: one failed, or it takes too long.
    """
    from ray import serve

    told, until = "", time.monotonic() + timeout_s
    while time.monotonic() < until:
        applications = serve.status().applications
        failed = [a for a in applications.values() if a.status.value in _FAILED]
        if failed:
            raise StartError(f"an application did not deploy: {reason(failed[0])}")
        states = ", ".join(
            f"{name} {d.status.value.lower()}" for a in applications.values() for name, d in a.deployments.items()
        )
        if states != told and sys.stdout.isatty():
            say(f"Serve    {states}")
            told = states
        if all_run(applications, wanted) and is_ready(address):
            return
        pause(0.25)
    logs = f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray/session_latest/logs/serve"
    raise StartError(f"the service was not ready within {timeout_s:.0f} s; logs: {logs}")


def all_run(applications: Mapping[str, Any], wanted: int) -> bool:
    """Whether Ray Serve knows as many applications as are wanted, and all of them run."""
    return len(applications) == wanted and all(a.status.value == "RUNNING" for a in applications.values())


def reason(application: Any) -> str:
    """Why an application failed: the end of a traceback, or the field and the fault of a pydantic error.

    Where a deployment failed the application's own message only names it.
    """
    messages = [d.message for d in application.deployments.values() if d.status.value in _FAILED and d.message]
    message = (messages or [application.message])[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("For further information visit")]
    if not lines:
        return str(application.status.value)
    fault, is_pydantic, _ = lines[-1].partition(" [type=")
    return ": ".join([*lines[-2:-1], fault]) if is_pydantic else lines[-1]


def is_ready(address: str | None) -> bool:
    """Whether the service at an address answers that it is ready; without an address there is nobody to ask.

    A proxy of the environment, which may not reach this machine's own addresses, is passed by.
    """
    import urllib.error
    import urllib.request

    if address is None:
        return True
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{address}/healthz/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
