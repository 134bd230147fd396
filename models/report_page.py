"""The part of docs/models.md that `python -m models report` writes, read back: its sections, and their figures."""

import re
from collections.abc import Mapping

BEGIN, END = "<!-- figures: python -m models report -->", "<!-- end of figures -->"
STEPS = {
    "teacher": "teacher, fp32",
    "student": "student, fp32",
    "pruned": "pruned, fp32",
    "int8": "**int8 (served)**",
    "fp16": "fp16",
    "unaware": "int8, not trained for it",
    "static": "int8, static ranges",
    "sparse": "pruned, 80 % of weights zero, fp32",
    "sparse_int8": "the same, int8",
}
"""Networks of a run, and what the tables call them."""
COMPARISONS = ("unaware", "static", "sparse", "sparse_int8")
"""Networks that are measured and never served; they would only hide the steps in the picture."""
_NAMES = {title: name for name, title in STEPS.items()}
_MILLISECONDS, _ACCURACY = 3, 6
"""Columns of a run's first table."""


def divide(text: str) -> tuple[str, dict[str, str], str]:
    """A page as what stands before the figures, the figures of each run by its name, and what follows.

    Raises:
        ValueError: the page lacks the two marks.
    """
    before, found, rest = text.partition(BEGIN)
    body, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"lacks the lines {BEGIN!r} and {END!r}")
    parts = re.split(r"^### (.+)\n", body, flags=re.MULTILINE)
    return before, dict(zip(parts[1::2], parts[2::2], strict=True)), after


def join(before: str, sections: Mapping[str, str], after: str) -> str:
    """The page again, its runs by name."""
    body = "".join(f"### {name}\n{sections[name]}" for name in sorted(sections))
    return f"{before}{BEGIN}\n{body}{END}{after}"


def points(sections: Mapping[str, str]) -> list[tuple[str, str, float, float]]:
    """(network, run, accuracy on the run's first set, milliseconds a message) of the steps that were timed."""
    found = []
    for run, text in sections.items():
        for line in text.splitlines():
            cells = line.strip("| ").split(" | ")
            name = _NAMES.get(cells[0])
            if name is None or name in COMPARISONS or len(cells) <= _ACCURACY:
                continue
            if "-" not in (cells[_MILLISECONDS], cells[_ACCURACY]):
                found.append((name, run, float(cells[_ACCURACY]), float(cells[_MILLISECONDS])))
    return found
