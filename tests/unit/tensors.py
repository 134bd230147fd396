"""Requests of the Open Inference Protocol, and the tensors of its answers."""

from collections.abc import Sequence
from typing import Any

import httpx

from tests.unit.plain_graph import Service

INFER = "/v2/models/production/infer"


def tensor(name: str, data: Sequence[object], /, **changes: object) -> dict[str, Any]:
    """An input of one dimension; `changes` replace or add fields."""
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data, **changes}


def messages(*texts: str, user: str = "ann") -> list[dict[str, Any]]:
    """The inputs of an inference that asks for one user."""
    return [tensor("text", texts), tensor("user_id", [user] * len(texts))]


async def infer(at: Service, inputs: object, **fields: object) -> httpx.Response:
    return await at.http.post(INFER, json={"inputs": inputs, **fields})


def columns(response: httpx.Response) -> dict[str, list[Any]]:
    """Each output's data, of which there is as much as its shape says."""
    assert response.status_code == 200, response.text
    outputs = response.json()["outputs"]
    for output in outputs:
        rows, *width = output["shape"]
        assert len(output["data"]) == rows * (width or [1])[0]
    return {output["name"]: output["data"] for output in outputs}
