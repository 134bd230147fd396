"""The logs of our own code in a replica, and of what sends its traces: where Ray Serve keeps the replica's."""

import logging
import logging.handlers

LOGGERS = ("deployments", "features", "models", "opentelemetry")


def log_with_serve() -> None:
    """Give our loggers the level and the file of `ray.serve`, whatever they say from now on.

    Without it they write to standard error, which Ray Serve turns into lines at INFO and then drops with the rest of
    its own INFO. With its throughput settings it also keeps warnings back until a thousand have come.
    """
    serve = logging.getLogger("ray.serve")
    for name in LOGGERS:
        logging.getLogger(name).parent = serve
    for handler in serve.handlers:
        if isinstance(handler, logging.handlers.MemoryHandler):
            handler.flushLevel = logging.WARNING
