"""The Serve configuration as this machine runs it. Imports Ray only when called: its environment is set before."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.schema import ServeDeploySchema


class ConfigurationError(RuntimeError):
    """What is wrong with the file, in one sentence."""


def read(file: Path) -> "ServeDeploySchema":
    """A Serve configuration.

    Raises:
        ConfigurationError: the file cannot be read, or Ray Serve would not take it.
    """
    import yaml
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    try:
        return ServeDeploySchema.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigurationError(f"{file}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def settle_here(schema: "ServeDeploySchema", arguments: argparse.Namespace, redis_url: str) -> None:
    """Put this machine's port, Redis and folders into a configuration. Ray drops what was never assigned, so assign."""
    schema.http_options = schema.http_options.model_copy(update={"port": arguments.port})
    for application in schema.applications:
        args = {**application.args, "redis_url": redis_url}
        if application.name == "switchboard":
            served = args.get("served_log", {})
            folder = arguments.served_log or served.get("folder") or arguments.state.resolve() / "served"
            args["served_log"] = {**served, "folder": None if arguments.served_log == "off" else str(folder)}
        application.args = args


def deploy(schema: "ServeDeploySchema") -> None:
    """As `serve deploy` does, without the dashboard that it needs."""
    from ray.serve._private.api import serve_start

    client = serve_start(
        http_options=schema.http_options.model_dump(),
        proxy_location=schema.proxy_location,
        grpc_options=schema.grpc_options.model_dump(),
        global_logging_config=schema.logging_config,
        controller_options=schema.controller_options,
    )
    client.deploy_apps(schema)
