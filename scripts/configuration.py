"""The Serve configuration as this machine runs it. Imports Ray only when called: its environment is set before."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.schema import ServeDeploySchema


class ConfigurationError(RuntimeError):
    """What is wrong with the file, in one sentence."""


def configuration(arguments: argparse.Namespace, redis_url: str) -> "ServeDeploySchema":
    """The Serve configuration with this machine's ports and folders; a wrong one is told before anything starts."""
    import yaml
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    try:
        config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(config)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{arguments.config}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigurationError(f"{arguments.config}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    config.setdefault("http_options", {})["port"] = arguments.port
    for application in config["applications"]:
        application.setdefault("args", {})["redis_url"] = redis_url
        if application["name"] == "switchboard" and arguments.served_log != "off":
            served = application["args"].setdefault("served_log", {})
            served["folder"] = str(arguments.served_log or served.get("folder") or arguments.state.resolve() / "served")
    return ServeDeploySchema.model_validate(config)


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
