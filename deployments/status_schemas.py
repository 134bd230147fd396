"""JSON schemas of the answers that no type on the wire describes: what serves, and whether it is ready."""

from typing import Any


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


_TEXT = {"type": "string"}
_BUNDLE = {
    "version": _TEXT,
    "labels": {"type": "array", "items": _TEXT},
    "fingerprint": _TEXT,
    "metrics": {"type": "object", "description": "Evaluation by data set."},
}
_PRESENT = _object({"name": _TEXT, "role": {"const": "present"}, **_BUNDLE})
_CANDIDATE = _object(
    {
        "name": _TEXT,
        "role": {"const": "candidate"},
        "state": {"enum": ["loading", "ready", "failed"]},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "shadow": {"type": "boolean"},
    },
    {"reason": _TEXT, **_BUNDLE},
)
MODELS = _object({"models": {"type": "array", "items": {"oneOf": [_PRESENT, _CANDIDATE]}}})
LIVE = _object({"status": {"const": "live"}})
READY = _object({"status": {"const": "ready"}, "model_version": _TEXT})
