"""Tensors of the Open Inference Protocol as messages: every form that they may have, and those that are refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import ApiError
from deployments.inference_protocol import InferenceRequest
from deployments.inference_tensors import MAX_MESSAGES, queries, wanted
from deployments.protocol import Query, visible
from tests.unit.tensors import messages, tensor

DECODER = msgspec.json.Decoder(InferenceRequest)
users = tensor("user_id", ["ann", "bob"])


def request(inputs: list[dict[str, Any]], **fields: object) -> InferenceRequest:
    return DECODER.decode(msgspec.json.encode({"inputs": inputs, **fields}))


def refusal(inputs: list[dict[str, Any]]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        queries(request(inputs))
    return refused.value


@given(
    st.lists(st.tuples(st.text(max_size=50).filter(visible), st.text(min_size=1, max_size=5)), min_size=1, max_size=5)
)
def test_the_forms_of_a_tensor_mean_the_same(rows: list[tuple[str, str]]) -> None:
    texts, people = [text for text, _ in rows], [user for _, user in rows]
    column: dict[str, Any] = {"shape": [len(rows), 1]}
    nested = {**column, "data": [[text] for text in texts]}
    expected = [Query(f"r{i}", user, text, 3, present_only=True) for i, (text, user) in enumerate(rows)]
    for changes in ({}, column, nested):
        inputs = [
            tensor("request_id", [f"r{i}" for i in range(len(rows))]),
            tensor("text", texts, **changes),
            tensor("user_id", people),
        ]
        assert queries(request(inputs)) == expected


@pytest.mark.parametrize("gap", [b" ", b"\n\t "])
def test_blanks_between_brackets_do_not_count(gap: bytes) -> None:
    body = msgspec.json.encode({"inputs": [tensor("text", [["a"], ["b"]], shape=[2, 1]), users]})
    spaced = body.replace(b"[", gap + b"[" + gap)
    assert [query.text for query in queries(DECODER.decode(spaced))] == ["a", "b"]


def test_messages_without_identifiers_get_their_own() -> None:
    assert len({query.request_id for query in queries(request(messages("a", "b", "c")))}) == 3


@pytest.mark.parametrize(("parameters", "top_k"), [({"top_k": 7, "other": [None]}, 7), ({}, 3), (None, 3)])
def test_top_k_is_a_parameter_and_others_are_ignored(parameters: object, top_k: int) -> None:
    [query] = queries(request(messages("a"), parameters=parameters))
    assert query.top_k == top_k


def test_an_inference_has_1_to_64_messages() -> None:
    assert len(queries(request(messages(*["a"] * MAX_MESSAGES)))) == MAX_MESSAGES == 64
    for n in (0, MAX_MESSAGES + 1):
        error = refusal(messages(*["a"] * n))
        assert error.body.field == "inputs[0].shape"
        assert "1 to 64" in error.body.message


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"datatype": "INT64"}, "datatype"),
        ({"datatype": "bytes"}, "datatype"),
        ({"shape": []}, "shape"),
        ({"shape": [-2]}, "shape"),
        ({"shape": [10**40]}, "shape"),
        ({"shape": [2, 2]}, "shape"),
        ({"shape": [2, -1]}, "shape"),
        ({"shape": [1, 2]}, "shape"),
        ({"shape": [2, 1, 1]}, "shape"),
        ({"shape": [3]}, "data"),
        ({"shape": [1]}, "data"),
        ({"data": []}, "data"),
        ({"data": "two"}, "data"),
        ({"data": {"0": "a", "1": "b"}}, "data"),
        ({"data": None}, "data"),
        ({"data": ["a", 1]}, "data[1]"),
        ({"data": ["a", True]}, "data[1]"),
        ({"data": ["a", None]}, "data[1]"),
        ({"data": ["a", ""]}, "data[1]"),
        ({"data": ["a", "x" * 4001]}, "data[1]"),
        ({"data": ["a", " \u200b\n"]}, "data[1]"),
        ({"data": [["a"], ["b"]]}, "data[0]"),
        ({"shape": [2, 1], "data": [["a"], "b"]}, "data[1]"),
        ({"shape": [2, 1], "data": ["a", ["b"]]}, "data[1]"),
        ({"shape": [2, 1], "data": [["a", "b"]]}, "data[0]"),
        ({"shape": [2, 1], "data": [["a"], []]}, "data[1]"),
        ({"shape": [2, 1], "data": [["a"], [["b"]]]}, "data[1][0]"),
        ({"shape": [2, 1], "data": [["a"], ["x" * 4001]]}, "data[1][0]"),
        ({"shape": [2, 1], "data": [["a"]]}, "data"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_named(changes: dict[str, Any], place: str) -> None:
    error = refusal([users, tensor("text", ["a", "b"], **changes)])
    assert (error.status, error.body.field) == (422, f"inputs[1].{place}")


@pytest.mark.parametrize("name", ["user_id", "request_id"])
@pytest.mark.parametrize("identifier", ["", "x" * 129])
def test_identifiers_have_the_limits_of_other_routes(name: str, identifier: str) -> None:
    inputs = {"text": tensor("text", ["a", "b"]), "user_id": users, name: tensor(name, ["ann", identifier])}
    place = f"inputs[{list(inputs).index(name)}].data[1]"
    assert refusal(list(inputs.values())).body.field == place


@pytest.mark.parametrize(
    ("inputs", "place", "said"),
    [
        ([], "inputs", "'text' is missing"),
        ([users], "inputs", "'text' is missing"),
        ([tensor("text", ["a", "b"])], "inputs", "'user_id' is missing"),
        ([*messages("a"), tensor("colour", ["red"])], "inputs[2].name", "there are text, user_id, request_id"),
        ([*messages("a"), tensor("text", ["b"])], "inputs[2].name", "twice"),
        ([*messages("a"), tensor("request_id", ["r", "s"])], "inputs[2].shape", "has 2 elements, text has 1"),
        ([users, tensor("text", ["a", "b", "c"])], "inputs[0].shape", "has 2 elements, text has 3"),
        ([users, tensor("text", ["a"])], "inputs[0].shape", "has 2 elements, text has 1"),
    ],
)
def test_tensors_that_do_not_belong_together_are_named(inputs: list[dict[str, Any]], place: str, said: str) -> None:
    error = refusal(inputs)
    assert (error.status, error.body.field) == (422, place)
    assert said in error.body.message


@pytest.mark.parametrize(("data", "code"), [(b'["\xff"]', "invalid_utf8"), (b'["\xed\xa0\x80"]', "invalid_utf8")])
def test_data_that_is_not_utf_8_is_no_message(data: bytes, code: str) -> None:
    body = msgspec.json.encode({"inputs": messages("here")}).replace(b'["here"]', data)
    with pytest.raises(ApiError) as refused:
        queries(DECODER.decode(body))
    assert (refused.value.status, refused.value.body.code) == (400, code)


@pytest.mark.parametrize("names", [["desk"], ["degraded", "action", "product"]])
def test_outputs_are_those_that_are_wanted_in_that_order(names: list[str]) -> None:
    assert wanted(request([], outputs=[{"name": name, "parameters": {"binary_data": True}} for name in names])) == names


@pytest.mark.parametrize("outputs", [None, []])
def test_without_names_all_outputs_are_wanted(outputs: object) -> None:
    assert {"product", "confidence", "desk", "top_product"} < set(wanted(request([], outputs=outputs)))


@pytest.mark.parametrize(("second", "said"), [("colour", "no output 'colour'"), ("desk", "twice")])
def test_an_output_that_cannot_be_given_is_named(second: str, said: str) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        wanted(request([], outputs=[{"name": "desk"}, {"name": second}]))
    assert (refused.value.status, refused.value.body.field) == (422, "outputs[1].name")
