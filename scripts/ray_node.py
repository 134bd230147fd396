"""The processes of this process's own Ray node."""

import contextlib

HELPERS = ("autoscaler/_private/monitor.py", "_private/log_monitor.py", "dashboard/dashboard.py")
NODE = ("gcs_server", "raylet")
"""The control store and the scheduler. Ray starts neither again, and nothing heals without them."""


def end_helpers() -> None:
    """End what Ray starts beside a node and one machine without a dashboard does not need, 170 MiB of it.

    That is the monitor of its autoscaler, which could add no nodes; the one that carries logs to drivers, whose files
    are written all the same; and the dashboard without pages, left with usage statistics that are off. `ray.init` has
    no option for them. They keep nothing; told to terminate, the monitor would have drivers print that it failed.
    """
    import psutil

    ended = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(argument.endswith(HELPERS) for argument in process.cmdline()):
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=5)


def missing() -> list[str]:
    """Which of the node's processes have ended, as all do by a signal to the whole process group."""
    import psutil

    running = set()
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.add(process.name())
    return [name for name in NODE if name not in running]
