"""Wire types of the Open Inference Protocol, version 2, over HTTP and JSON."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from deployments.protocol import MAX_TOP_K

MAX_NAME = 128
Element = str | float | bool
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Shape = Annotated[list[int], msgspec.Meta(description="[n] or [n, 1].")]
TensorData = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="Elements in row-major order, flat or nested like the shape.",
        extra_json_schema={
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        },
    ),
]
"""Left as bytes until it is known which tensor it belongs to."""
Ignored = dict[str, msgspec.Raw]
"""Parameters whose values cost nothing, as nobody reads them."""


class ServerMetadata(msgspec.Struct, frozen=True):
    """What serves here; `extensions` are those of the protocol that it knows."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(msgspec.Struct, frozen=True):
    """The server answers."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True):
    """The server answers inferences. The protocol's text calls it `live`; its clients ask for `ready`."""

    live: bool
    ready: bool


class ModelReady(msgspec.Struct, frozen=True):
    """The model answers inferences."""

    name: str
    ready: bool


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor that an inference takes or gives; -1 is a dimension of variable size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """The model: required inputs, all outputs, and in `properties` what else a request may hold."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class RequestInput(msgspec.Struct, frozen=True):
    """A tensor of n elements, one for each message. Parameters are ignored."""

    name: Name
    shape: Shape
    datatype: str
    data: TensorData
    parameters: Ignored | None = None


class RequestOutput(msgspec.Struct, frozen=True):
    """An output that the answer shall have. Parameters are ignored."""

    name: Name
    parameters: Ignored | None = None


class InferenceParameters(msgspec.Struct, frozen=True):
    """Parameters of an inference; those that are not listed are ignored."""

    top_k: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOP_K, description="Columns of the tensors `top_…`.")] = 3


class InferenceRequest(msgspec.Struct, frozen=True):
    """n messages to classify. Without `outputs` the answer has all of them."""

    inputs: Annotated[list[RequestInput], msgspec.Meta(extra_json_schema={"minItems": 1})]
    id: str | None = None
    parameters: InferenceParameters | None = None
    outputs: list[RequestOutput] | None = None


class ResponseOutput(msgspec.Struct, frozen=True):
    """A tensor of the answer; `data` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: Sequence[Element]


class InferenceResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tensors that were asked for, in that order; `id` is the request's, if it had one."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None
