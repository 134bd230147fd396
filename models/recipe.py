"""What a training run can be told."""

from dataclasses import dataclass, field
from typing import Any

QUANTIZATIONS = ("dynamic", "static", "fp16", "none")


def option(default: Any, text: str) -> Any:
    """A field of the recipe, with the text that `python -m models train --help` shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every field is an option of `python -m models train`."""

    encoder: str = option("default", "folder or hub id of the pretrained encoder that teachers start from")
    teachers: int = option(3, "teachers to train and average, each with a seed of its own")
    teacher_epochs: int = option(6, "at the most: training stops early when validation gets no better")
    smoothing: float = option(0.1, "share of every label that teachers spread over all; less keeps clear words strong")
    balance: float = option(0.0, "draw rare products more often: 0 as in the data, 1 all equally often")
    student: str = option("layers", "'layers' of a teacher, 'scratch', a pretrained encoder, or 'teacher' itself")
    student_layers: int = option(4, "layers of the student")
    student_epochs: int = option(3, "passes over the transfer set")
    noise: int = option(2, "noisy copies of every text in the transfer set")
    mixtures: int = option(2, "mixed texts for every text in the transfer set")
    heads: int = option(8, "attention heads a layer that structured pruning leaves")
    neurons: int = option(768, "feed-forward neurons a layer that structured pruning leaves")
    recovery_epochs: int = option(3, "passes over the transfer set after pruning")
    vocabulary: int = option(13000, "word pieces to keep")
    max_tokens: int = option(0, "longest message in tokens; 0 takes what 99 of 100 training texts need, 192 at most")
    quantization: str = option("dynamic", "int8 'dynamic' or 'static', 'fp16' (for GPUs) or 'none'")
    int8_tolerance: float = option(0.2, "points of validation accuracy that dynamic int8 may lose untrained")
    aware_epochs: int = option(1, "quantisation-aware passes if it loses more; 0: none")
    precision: float = option(0.95, "wanted share of right answers among those that are routed")
    validation: float = option(0.06, "share of the rows that chooses epochs and calibrates, without --validation-data")
    test: float = option(0.0, "share of the rows that is only measured on (the own corpus: 0.1)")
    seed: int = option(0, "of everything that is drawn by chance")
