"""The part of docs/models.md that `python -m models report` writes, read back: its sections, and their figures."""

import re
from collections.abc import Iterator, Mapping
from itertools import dropwhile, takewhile

BEGIN, END = "<!-- figures: python -m models report -->", "<!-- end of figures -->"
STEPS = {
    "teacher": "teacher, fp32",
    "teacher_fp16": "teacher, fp16",
    "student": "student, fp32",
    "pruned": "pruned, fp32",
    "fp16": "fp16",
    "int8": "**int8 (served)**",
    "unaware": "int8, not trained for it",
    "static": "int8, static ranges",
    "sparse": "pruned, 80 % of weights zero, fp32",
    "sparse_int8": "the same, int8",
}
"""Networks of a run, and what the tables call them."""
SERVED_FP16 = "**fp16 (served)**"
COMPARISONS = ("teacher_fp16", "fp16", "unaware", "static", "sparse", "sparse_int8")
"""Networks that are measured and not served, `fp16` in most runs; they would only hide the steps in the picture."""
_NAMES = {title: name for name, title in STEPS.items() if name not in COMPARISONS} | {SERVED_FP16: "fp16"}
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


def title(name: str, quantization: str | None) -> str:
    """What the tables call a network of a run whose served network was quantised like this."""
    return SERVED_FP16 if name == quantization == "fp16" else STEPS.get(name, name)


def points(sections: Mapping[str, str]) -> list[tuple[str, str, float, float]]:
    """(network, run, accuracy on the run's first set, milliseconds a message) of the steps that were timed."""
    found = []
    for run, text in sections.items():
        for cells in _first_table(text):
            name = _NAMES.get(cells[0])
            if name is None or len(cells) <= _ACCURACY:
                continue
            if "-" not in (cells[_MILLISECONDS], cells[_ACCURACY]):
                found.append((name, run, float(cells[_ACCURACY]), float(cells[_MILLISECONDS])))
    return found


def _first_table(text: str) -> Iterator[list[str]]:
    """The cells of each of its lines."""
    rest = dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    for line in takewhile(lambda line: line.startswith("|"), rest):
        yield line.strip("| ").split(" | ")
