"""Messages out of input tensors, and answers into output tensors."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from deployments.bodies import parse
from deployments.errors import ApiError
from deployments.identifiers import new_identifier
from deployments.inference_protocol import (
    Element,
    InferenceParameters,
    InferenceRequest,
    ModelMetadata,
    RequestInput,
    ResponseOutput,
    TensorMetadata,
)
from deployments.protocol import MAX_TOP_K, PredictResponse, Query, Text, visible
from features.schema import Identifier

MAX_MESSAGES = 64
"""Messages of one inference."""
PLATFORM = "onnx_onnxv1"
_NESTED = re.compile(rb"\s*\[\s*\[")
_ONE = msgspec.Meta(min_length=1, max_length=1)


class _Input:
    """An input: how its data is read, flat or as a column, and whether a request must have it."""

    def __init__(self, flat: object, column: object, required: bool) -> None:
        self.flat: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(flat)
        self.column: msgspec.json.Decoder[list[list[str]]] = msgspec.json.Decoder(column)
        self.required = required


_IDENTIFIERS = (list[Identifier], list[Annotated[list[Identifier], _ONE]])
_INPUTS = {
    "text": _Input(list[Text], list[Annotated[list[Text], _ONE]], required=True),
    "user_id": _Input(*_IDENTIFIERS, required=True),
    "request_id": _Input(*_IDENTIFIERS, required=False),
}


@dataclass(frozen=True, slots=True)
class _Output:
    """An output: what one answer adds to it, one element, or as many as it has products in `top`."""

    datatype: str
    elements: Callable[[PredictResponse], Sequence[Element]]
    wide: bool = False


_OUTPUTS = {
    "request_id": _Output("BYTES", lambda answer: [answer.request_id]),
    "product": _Output("BYTES", lambda answer: [answer.product]),
    "confidence": _Output("FP64", lambda answer: [answer.confidence]),
    "action": _Output("BYTES", lambda answer: [answer.action.type]),
    "desk": _Output("BYTES", lambda answer: [answer.action.desk]),
    "top_product": _Output("BYTES", lambda answer: [candidate.product for candidate in answer.top], wide=True),
    "top_confidence": _Output("FP64", lambda answer: [candidate.confidence for candidate in answer.top], wide=True),
    "cached": _Output("BOOL", lambda answer: [answer.cached]),
    "degraded": _Output("BYTES", lambda answer: [",".join(answer.degraded)]),
}


def metadata(name: str, version: str) -> ModelMetadata:
    """What an inference takes and gives."""
    optional = [input_name for input_name, tensor in _INPUTS.items() if not tensor.required]
    return ModelMetadata(
        name,
        [version],
        PLATFORM,
        [TensorMetadata(required, "BYTES", [-1]) for required in _INPUTS if required not in optional],
        [TensorMetadata(o, made.datatype, [-1, -1] if made.wide else [-1]) for o, made in _OUTPUTS.items()],
        {
            "optional_inputs": ",".join(optional),
            "max_messages": str(MAX_MESSAGES),
            "parameter_top_k": f"1 to {MAX_TOP_K}, {InferenceParameters().top_k} by default",
        },
    )


def queries(request: InferenceRequest) -> list[Query]:
    """The n messages of a request, each within the limits that it would have alone.

    Raises:
        ApiError: 400 or 422, naming the place in the body.
    """
    columns: dict[str, list[str]] = {}
    for i, tensor in enumerate(request.inputs):
        if tensor.name not in _INPUTS:
            raise _invalid(f"no input {tensor.name!r}; there are {', '.join(_INPUTS)}", f"inputs[{i}].name")
        if tensor.name in columns:
            raise _invalid(f"the input {tensor.name!r} is there twice", f"inputs[{i}].name")
        columns[tensor.name] = _elements(tensor, f"inputs[{i}]")
    for name, known in _INPUTS.items():
        if known.required and name not in columns:
            raise _invalid(f"the input {name!r} is missing", "inputs")
    texts, users = columns["text"], columns["user_id"]
    for i, (name, column) in enumerate(columns.items()):
        if len(column) != len(texts):
            raise _invalid(f"{name} has {len(column)} elements, text has {len(texts)}", f"inputs[{i}].shape")
    for j, text in enumerate(texts):
        if not visible(text):
            place = f"inputs[{list(columns).index('text')}].data[{j}]"
            raise _invalid("the text has no visible character", place)
    identifiers = columns.get("request_id") or [new_identifier() for _ in texts]
    top_k = (request.parameters or InferenceParameters()).top_k
    return [Query(*parts, top_k, present_only=True) for parts in zip(identifiers, users, texts, strict=True)]


def _elements(tensor: RequestInput, place: str) -> list[str]:
    """The n elements of an input tensor of shape [n] or [n, 1], whose data may be flat or nested."""
    if tensor.datatype != "BYTES":
        raise _invalid(f"{tensor.name} has the datatype BYTES", f"{place}.datatype")
    shape = tensor.shape
    if not shape or shape[1:] not in ([], [1]):
        raise _invalid(f"{tensor.name} has the shape [n] or [n, 1]", f"{place}.shape")
    if not 1 <= shape[0] <= MAX_MESSAGES:
        raise _invalid(f"{tensor.name} has 1 to {MAX_MESSAGES} elements", f"{place}.shape")
    known, where = _INPUTS[tensor.name], f"{place}.data"
    if len(shape) == 2 and _NESTED.match(tensor.data):
        elements = [element for (element,) in parse(known.column, tensor.data, where)]
    else:
        elements = parse(known.flat, tensor.data, where)
    if len(elements) != shape[0]:
        raise _invalid(f"{tensor.name} has {len(elements)} elements, its shape says {shape[0]}", where)
    return elements


def wanted(request: InferenceRequest) -> list[str]:
    """The names of the outputs that a request asks for: all of them, if it names none.

    Raises:
        ApiError: 422, naming the output that there is not, or that is there twice.
    """
    names: list[str] = []
    for i, output in enumerate(request.outputs or ()):
        if output.name not in _OUTPUTS:
            raise _invalid(f"no output {output.name!r}; there are {', '.join(_OUTPUTS)}", f"outputs[{i}].name")
        if output.name in names:
            raise _invalid(f"the output {output.name!r} is there twice", f"outputs[{i}].name")
        names.append(output.name)
    return names or list(_OUTPUTS)


def outputs(names: Sequence[str], answers: Sequence[PredictResponse]) -> list[ResponseOutput]:
    """The named tensors, of n answers with equally many products in `top`."""
    tensors = []
    for name in names:
        made = _OUTPUTS[name]
        data = [element for answer in answers for element in made.elements(answer)]
        shape = [len(answers), len(answers[0].top)] if made.wide else [len(answers)]
        tensors.append(ResponseOutput(name, shape, made.datatype, data))
    return tensors


def _invalid(message: str, field: str) -> ApiError:
    return ApiError(422, "invalid_field", message, field)
