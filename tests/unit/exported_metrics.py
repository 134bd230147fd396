"""Names of the metrics that the code makes, read from its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def exported() -> set[str]:
    """As Prometheus has them, without `ray_switchboard_`: keys in what the methods `counts` and `levels` return."""
    names = set()
    for path in [*ROOT.glob("deployments/*.py"), *ROOT.glob("features/*.py")]:
        for method in ast.walk(ast.parse(path.read_text())):
            if isinstance(method, ast.FunctionDef) and method.name in ("counts", "levels"):
                found = {name for node in ast.walk(method) for name in _keys(node)}
                names |= {name.removesuffix("_total") + "_total" if method.name == "counts" else name for name in found}
    return names


def _keys(node: ast.AST) -> Iterator[str]:
    keys: list[ast.expr | None] = (
        node.keys if isinstance(node, ast.Dict) else [node.key] if isinstance(node, ast.DictComp) else []
    )
    for key in keys:
        name = key.elts[0] if isinstance(key, ast.Tuple) else key
        if isinstance(name, ast.Constant):
            yield str(name.value)
