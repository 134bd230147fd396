"""From labelled texts to a small int8 network: teachers, transfer set, student, pruning, recovery, export."""

import copy
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from features.drafts import replacing
from features.preprocess import Ids, PreprocessConfig, Preprocessor
from models.blocks import UnknownEncoder, blocks
from models.classifier import TextClassifier
from models.distil import distil, from_pretrained, from_scratch, from_teacher
from models.export import export_onnx, require_exportable
from models.networks import Floats, TextNet, keep_embeddings, load_encoder, token_limit
from models.optimise import Schedule
from models.prune import prune_blocks
from models.quantization_aware import as_quantized
from models.quantize import quantize
from models.recipe import OptionError, Recipe
from models.stages import Stages
from models.teacher import share_right, train_teachers
from models.transfer import TransferSet, label, transfer_texts
from models.vocabulary import PRUNED, prune_vocabulary

TEACHER_RATE = 1e-4
STUDENT_RATE, STUDENT_HEAD_RATE = 2e-4, 5.0
AWARE_RATE = 5e-5
AWARE_FILE = "int8_aware.onnx"
OF_STAGE = {"teacher": "teachers"}
"""The stage that makes a network, if its name is another."""
SAMPLE = 1500
"""Training texts that importance and the range of activations are measured on."""
SHORTEST_LIMIT, LONGEST_LIMIT = 96, 192


@dataclass(frozen=True, slots=True)
class Texts:
    """What the networks see of the data: distinct texts and (n, outputs) label distributions."""

    train: list[str]
    targets: Floats
    held: list[str]
    held_targets: Floats
    unlabelled: Sequence[str] = ()

    def validation(self, preprocessor: Preprocessor) -> tuple[list[Ids], Floats]:
        """n token vectors of the held texts, and their (n, outputs) label distributions."""
        return preprocessor.tokens(self.held), self.held_targets

    def sample(self, preprocessor: Preprocessor, seed: int) -> tuple[list[Ids], Floats]:
        """At most `SAMPLE` training texts drawn by the seed: n token vectors, (n, outputs) label distributions."""
        chosen = random.Random(seed).sample(range(len(self.train)), min(SAMPLE, len(self.train)))
        return preprocessor.tokens([self.train[i] for i in chosen]), self.targets[chosen]


@dataclass(frozen=True, slots=True)
class Compressed:
    """Every network of a run as an ONNX file, and the preprocessors for them."""

    teacher_preprocessor: Preprocessor
    preprocessor: Preprocessor
    """Of the student: what is served."""
    networks: dict[str, Path]
    """The ONNX file of every step, from `teacher` to `int8`."""

    @property
    def served(self) -> Path:
        """The ONNX file of the last step."""
        return list(self.networks.values())[-1]


def compress(texts: Texts, recipe: Recipe, stages: Stages) -> Compressed:
    """Train, distil, prune, quantise; every network stays in the folder of the stages.

    Raises:
        OptionError: an encoder cannot be loaded, or has fewer layers, heads, neurons or positions than the recipe
            asks for.
        UnknownEncoder: an encoder cannot be exported, or not be pruned; `student="teacher"` does without the latter.
    """
    teacher_pre = teacher_preprocessor(texts, recipe)
    _require_student(recipe, teacher_pre.config.max_tokens)
    for encoder in recipe.encoders:
        require_exportable(encoder)
    teachers = stages.run("teachers", lambda: _teachers(texts, recipe, teacher_pre))
    nets, student_pre, transfer = {"teacher": teachers[0]}, teacher_pre, None
    if recipe.student != "teacher":
        transfer = stages.run("transfer", lambda: _transfer(teachers, texts, recipe, teacher_pre))
        student, student_pre = stages.run(
            "student", lambda: _student(teachers[0], transfer, texts, recipe, teacher_pre)
        )
        pruned = stages.run("pruned", lambda: _pruned(student, transfer, texts, recipe, student_pre))
        nets |= {"student": student, "pruned": pruned}
    files = {name: _exported(net, name, stages) for name, net in tqdm(nets.items(), desc="export", unit="network")}
    if recipe.quantization != "none":
        source, name = list(files.values())[-1], "fp16" if recipe.quantization == "fp16" else "int8"
        rows = texts.sample(student_pre, recipe.seed)[0]
        files[name] = quantized(source, stages.folder / f"{name}.onnx", recipe.quantization, rows)
        if recipe.quantization == "dynamic" and recipe.aware_epochs and transfer is not None:

            def aware() -> Path:
                net = stages.run("aware", lambda: _aware(pruned, transfer, texts, recipe, student_pre))
                return quantized(_exported(net, "aware", stages), stages.folder / AWARE_FILE, "dynamic")

            files[name] = _better_int8(source, files[name], aware, texts.validation(student_pre), recipe.int8_tolerance)
    _save(teacher_pre, stages.folder / "teacher_tokenizer.json")
    _save(student_pre, stages.folder / "tokenizer.json")
    return Compressed(teacher_pre, student_pre, files)


def _better_int8(
    fp32: Path, int8: Path, aware: Callable[[], Path], validation: tuple[list[Ids], Floats], tolerance: float
) -> Path:
    """The int8 network; if it loses more points than tolerated, the better of it and the one that `aware` makes."""
    plain = _points(int8, *validation)
    if _points(fp32, *validation) - plain <= tolerance:
        return int8
    trained = aware()
    return trained if _points(trained, *validation) > plain else int8


def _require_student(recipe: Recipe, tokens: int) -> None:
    """Refuse, before hours of training, a student that cannot be made or pruned as the recipe says."""
    if recipe.student == "teacher":
        return
    encoder, tokenizer = load_encoder(recipe.encoders[-1])
    if tokens > (most := token_limit(encoder)):
        raise OptionError(f"--student {recipe.student}: it takes {most} tokens at the most: give --max-tokens {most}")
    try:
        parts, usual = list(blocks(encoder)), Recipe()
    except UnknownEncoder as error:
        raise UnknownEncoder(
            f"encoder {recipe.encoders[-1]}: {error}: give another --student, a BERT-like or DistilBERT encoder, "
            "or --student teacher, which serves the encoder whole"
        ) from None
    kind = type(tokenizer.model).__name__
    if kind != PRUNED and recipe.vocabulary != usual.vocabulary:
        raise OptionError(f"--vocabulary has no effect with the encoder's {kind} tokenizer: leave it out")
    layers = len(parts)
    if recipe.student == "layers" and recipe.student_layers > layers:
        raise OptionError(f"--student-layers {recipe.student_layers}: the encoder has {layers} of them: give no more")
    for name in ("heads", "neurons"):
        told, most = getattr(recipe, name), max(getattr(part, name) for part in parts)
        if told > most and told != getattr(usual, name):
            raise OptionError(f"--{name} {told}: the encoder has {most} of them a layer: give no more")


def teacher_preprocessor(texts: Texts, recipe: Recipe) -> Preprocessor:
    """The encoder's own tokenizer, with the recipe's limit of tokens or one that the training texts ask for.

    Raises:
        OptionError: the limit is beyond what the encoder has positions for.
    """
    encoder, tokenizer = load_encoder(recipe.encoder)
    limit, most = recipe.max_tokens, token_limit(encoder)
    if limit > most:
        raise OptionError(f"--max-tokens {limit}: the encoder takes {most} tokens at the most: give 8 to {most}")
    if not limit:
        longest = Preprocessor(PreprocessConfig(max_tokens=LONGEST_LIMIT), tokenizer)
        wanted = np.quantile([len(row) for row in longest.tokens(texts.train)], 0.99)
        limit = min(most, max(SHORTEST_LIMIT, 16 * int(np.ceil(wanted / 16))))
    return Preprocessor(PreprocessConfig(max_tokens=limit), tokenizer)


def _teachers(texts: Texts, recipe: Recipe, preprocessor: Preprocessor) -> list[TextNet]:
    return train_teachers(
        recipe.teachers, lambda: TextNet(load_encoder(recipe.encoder)[0], texts.targets.shape[1]),
        preprocessor, texts.train, texts.targets, Schedule(recipe.teacher_epochs, TEACHER_RATE, seed=recipe.seed),
        validation=texts.validation(preprocessor), balance=recipe.balance, smoothing=recipe.smoothing,
    )  # fmt: skip


def _transfer(teachers: Sequence[TextNet], texts: Texts, recipe: Recipe, preprocessor: Preprocessor) -> TransferSet:
    pool, owner = transfer_texts(
        texts.train, texts.unlabelled, noise=recipe.noise, mixtures=recipe.mixtures, seed=recipe.seed
    )
    return label(teachers, preprocessor, pool, owner, texts.targets)


def _student(
    teacher: TextNet, transfer: TransferSet, texts: Texts, recipe: Recipe, wide: Preprocessor
) -> tuple[TextNet, Preprocessor]:
    """The distilled student, and the preprocessor with its pruned vocabulary."""
    tokenizer = wide.tokenizer
    if recipe.student == "layers":
        student = from_teacher(teacher, recipe.student_layers, *texts.validation(wide))
    elif recipe.student == "scratch":
        student = from_scratch(teacher, recipe.student_layers, recipe.seed)
    else:
        torch.manual_seed(recipe.seed)
        student, tokenizer = from_pretrained(recipe.student, texts.targets.shape[1])
    student.pooling = recipe.pooling
    normalised = (wide.normalise(text) for text in texts.train)
    tokenizer, old_ids = prune_vocabulary(tokenizer, normalised, recipe.vocabulary)
    keep_embeddings(student.encoder, old_ids, wide.config.max_tokens)
    narrow = Preprocessor(wide.config, tokenizer)
    schedule = Schedule(recipe.student_epochs, STUDENT_RATE, head_rate=STUDENT_HEAD_RATE, seed=recipe.seed)
    return distil(student, narrow, transfer, schedule, validation=texts.validation(narrow)), narrow


def _pruned(
    student: TextNet, transfer: TransferSet, texts: Texts, recipe: Recipe, preprocessor: Preprocessor
) -> TextNet:
    pruned = prune_blocks(student, *texts.sample(preprocessor, recipe.seed), recipe.heads, recipe.neurons)
    schedule = Schedule(recipe.recovery_epochs, STUDENT_RATE, head_rate=STUDENT_HEAD_RATE, seed=recipe.seed + 1)
    validation = texts.validation(preprocessor)
    return distil(pruned, preprocessor, transfer, schedule, validation=validation, title="recovery")


def _exported(net: TextNet, name: str, stages: Stages) -> Path:
    path, stage = stages.folder / f"{name}.onnx", stages.path(OF_STAGE.get(name, name))
    if not (path.is_file() and path.stat().st_mtime_ns >= stage.stat().st_mtime_ns and _is_whole(path)):
        with replacing(path) as draft:
            export_onnx(net, draft)
    return path


def _is_whole(network: Path) -> bool:
    """Whether an exported network can be read; prints a warning if not."""
    try:
        TextClassifier(network)
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime has no narrower type for it
        tqdm.write(f"warning: {network} is damaged ({type(error).__name__}): exported again", file=sys.stderr)
        return False
    return True


def _save(preprocessor: Preprocessor, target: Path) -> None:
    with replacing(target) as draft:
        preprocessor.tokenizer.save(str(draft))


def quantized(source: Path, target: Path, kind: str, rows: Sequence[Ids] = ()) -> Path:
    """Write `quantize`'s copy of a network to the target, whole or not at all; returns the target."""
    with replacing(target) as draft:
        quantize(source, draft, kind, rows)
    return target


def _points(network: Path, rows: Sequence[Ids], targets: Floats) -> float:
    """Accuracy in per cent."""
    return 100 * share_right(TextClassifier(network)(rows), targets) if rows else 0.0


def _aware(pruned: TextNet, transfer: TransferSet, texts: Texts, recipe: Recipe, preprocessor: Preprocessor) -> TextNet:
    """A copy of the pruned network, trained with the rounding of int8."""
    net = copy.deepcopy(pruned)
    schedule = Schedule(recipe.aware_epochs, AWARE_RATE, head_rate=1.0, seed=recipe.seed + 2)
    with as_quantized(net):
        return distil(
            net, preprocessor, transfer, schedule, validation=texts.validation(preprocessor), title="aware of int8"
        )
