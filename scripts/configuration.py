"""The Serve configuration as this machine runs it. Imports Ray only when called: its environment is set before."""

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_url import shown

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema
    from yaml import YAMLError

SWITCHBOARD = "switchboard"
DEFAULT_PORT = 8000
_BUILDERS = ("graph.build", "graph.build_screen_events")


class ConfigurationError(RuntimeError):
    """What is wrong with the file, in one sentence."""


def read(file: Path) -> "ServeDeploySchema":
    """A Serve configuration.

    Raises:
        ConfigurationError: the file cannot be read, or Ray Serve or an application of graph.py would not take it.
    """
    import yaml
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    place: tuple[int | str, ...] = ()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        schema = ServeDeploySchema.model_validate(content)
        for unknown in _unknown(content, schema):
            raise ConfigurationError(f"{file}: {unknown}")
        for i, application in enumerate(schema.applications):
            for below, model, values in _settings(application):
                place = ("applications", i, *below)
                model.model_validate(values)
        _require_one_store(schema)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {_fault(error, place)}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: {_syntax(error)}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{file}: {' '.join(str(error).split())}") from None
    return schema


def port_of(file: Path) -> int:
    """The HTTP port of a Serve configuration, for what is needed before `read`, which says what is wrong with it."""
    import yaml

    try:
        port = yaml.safe_load(file.read_text(encoding="utf-8"))["http_options"]["port"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return DEFAULT_PORT
    return port if type(port) is int and 1 <= port <= 65_535 else DEFAULT_PORT


def redis_urls(schema: "ServeDeploySchema") -> set[str]:
    """The addresses of Redis in this project's applications."""
    return {a.args["redis_url"] for a in schema.applications if _is_ours(a) and "redis_url" in a.args}


def unknown_desks(schema: "ServeDeploySchema") -> set[str]:
    """Products that have a desk in the file and are none of the model's; a model that is not there is told later."""
    from deployments.arguments import AppArgs
    from models.bundle import BundleError
    from models.registry import Registry

    unknown = set[str]()
    for application in schema.applications:
        if _path(application) == _BUILDERS[0]:
            args = AppArgs.model_validate(application.args)
            with suppress(BundleError, OSError):
                unknown |= args.desks.keys() - set(Registry.at(args.registry).load(args.model).manifest.labels)
    return unknown


def settle_here(schema: "ServeDeploySchema", arguments: argparse.Namespace, redis_url: str) -> None:
    """Put this machine's port, Redis and folders into a configuration. Ray drops what was never assigned, so assign.

    An address that must not be shown goes by its environment variable, since Ray logs the arguments of applications.
    """
    if shown(redis_url) != redis_url:
        os.environ["REDIS_URL"], redis_url = redis_url, "$REDIS_URL"
    schema.http_options = schema.http_options.model_copy(update={"port": arguments.port})
    for application in filter(_is_ours, schema.applications):
        args = {**application.args, "redis_url": redis_url}
        if application.name == SWITCHBOARD:
            served = args.get("served_log") or {}
            folder = arguments.served_log or served.get("folder") or arguments.state / "served"
            args["served_log"] = {**served, "folder": None if arguments.served_log == "off" else str(folder)}
        application.args = args


def needs_key(schema: "ServeDeploySchema") -> bool:
    """Whether the application `switchboard` asks for an API key."""
    return any(a.name == SWITCHBOARD and a.args.get("api_keys") is not None for a in schema.applications)


def address(schema: "ServeDeploySchema") -> str | None:
    """Where the application `switchboard` answers; None without it, or without a route to it."""
    for application in schema.applications:
        if application.name == SWITCHBOARD and application.route_prefix is not None:
            return f"http://127.0.0.1:{schema.http_options.port}{application.route_prefix.rstrip('/')}"
    return None


def deploy(schema: "ServeDeploySchema") -> None:
    """As `serve deploy` does, without the dashboard that it needs.

    Raises:
        ConfigurationError: Ray Serve cannot start, as where another process has taken its port meanwhile.
    """
    from ray.serve._private.api import serve_start

    try:
        client = serve_start(
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            grpc_options=schema.grpc_options.model_dump(),
            global_logging_config=schema.logging_config,
            controller_options=schema.controller_options,
        )
    except RuntimeError as error:
        raise ConfigurationError(f"Ray Serve does not start: {why_haproxy_fails(str(error))}") from None
    client.deploy_apps(schema)


def why_haproxy_fails(told: str) -> str:
    """Why HAProxy does not start, in one sentence of all that it and Ray have told; all of that for other reasons."""
    port = re.search(r"cannot bind socket \((?P<reason>[^)]*)\) for \[(?P<where>[^]]*)\]", told)
    if port:
        return f"HAProxy cannot listen on {port['where']} ({port['reason']})"
    files = re.search(r"Cannot raise FD limit to (\d+)", told)
    if files:
        return f"HAProxy needs {files[1]} open files: raise the limit (ulimit -Hn), or use --proxy standard"
    return " ".join(told.split())


def _require_one_store(schema: "ServeDeploySchema") -> None:
    """Refuse limits that the ingester and the readers of the store have apart: what is served would be skewed."""
    from features.store import StoreConfig

    stores = {a.name: StoreConfig(**a.args.get("store", {})) for a in schema.applications if _is_ours(a)}
    first = next(iter(stores), "")
    for name, store in stores.items():
        for limit, value in store:
            if value != (other := getattr(stores[first], limit)):
                raise ValueError(f"store.{limit} is {other} in {first} and {value} in {name}: give both the same")


def _is_ours(application: "ServeApplicationSchema") -> bool:
    return _path(application) in _BUILDERS


def _path(application: "ServeApplicationSchema") -> str:
    return application.import_path.replace(":", ".")


def _settings(
    application: "ServeApplicationSchema",
) -> Iterator[tuple[tuple[int | str, ...], "type[BaseModel]", dict[str, Any]]]:
    """What an application of graph.py takes: where it is, its model, and the values."""
    from deployments.arguments import AppArgs, ScreenEventsArgs
    from deployments.cache import CacheConfig
    from deployments.ingress import IngressConfig

    args: dict[str, type[BaseModel]] = dict(zip(_BUILDERS, (AppArgs, ScreenEventsArgs), strict=True))
    user_configs: dict[str, type[BaseModel]] = {"Ingress": IngressConfig, "PredictionCache": CacheConfig}
    if not _is_ours(application):
        return
    yield ("args",), args[_path(application)], application.args
    for i, deployment in enumerate(application.deployments):
        if deployment.name in user_configs and isinstance(deployment.user_config, dict):
            yield ("deployments", i, "user_config"), user_configs[deployment.name], deployment.user_config


def _unknown(told: Any, taken: Any, place: tuple[int | str, ...] = ()) -> Iterator[str]:
    """Settings that Ray Serve passes over in silence: each with its place, and the one that it may have meant."""
    from pydantic import BaseModel
    from ray.serve.config import AutoscalingConfig

    if isinstance(told, list) and isinstance(taken, list):
        for i, (one, model) in enumerate(zip(told, taken, strict=False)):
            yield from _unknown(one, model, (*place, i))
    if not (isinstance(told, dict) and isinstance(taken, BaseModel)):
        return
    known = type(taken).model_fields
    for name, value in told.items():
        here = (*place, name)
        if name in known:
            part = AutoscalingConfig.model_construct() if name == "autoscaling_config" else getattr(taken, name)
            yield from _unknown(value, part, here)
        else:
            near = get_close_matches(str(name), known, n=1)
            yield f"{'.'.join(map(str, here))}: no such setting" + "".join(f", is {one} meant?" for one in near)


def _fault(error: "ValidationError", place: tuple[int | str, ...]) -> str:
    """The first fault and where it is, without the value, which may be a password."""
    fault = error.errors(include_input=False)[0]
    where = ".".join(map(str, (*place, *fault["loc"])))
    return f"{where}: {fault['msg']}" if where else fault["msg"]


def _syntax(error: "YAMLError") -> str:
    """What is no YAML and where, without the line, which may hold a password."""
    from yaml import MarkedYAMLError

    if not isinstance(error, MarkedYAMLError):
        return " ".join(str(error).split())
    what = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return what if mark is None else f"{what}, in line {mark.line + 1}, column {mark.column + 1}"
