"""The whole of compression on a tiny encoder: which networks come of it, and that finished work is not done again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MPNetConfig, MPNetModel, T5Config, T5Model, XLNetConfig, XLNetModel

from models.blocks import UnknownEncoder, blocks, layer_stack
from models.classifier import TextClassifier, is_int8
from models.compress import Compressed, Texts, compress, teacher_preprocessor
from models.data import Example, Split
from models.export import require_exportable
from models.recipe import OptionError, Recipe
from models.stages import Stages
from models.targets import text_targets
from models.teacher import share_right
from tests.unit.tiny import FILLERS, PRODUCTS, VOCABULARY, chats, fail, logits, save_encoder

NAMES = sorted(PRODUCTS)
UNLABELLED = ("an unlabelled message of the user",)


def texts_of(train: list[Example], held: list[Example]) -> Texts:
    return Texts(*text_targets(train, NAMES, 3), *text_targets(held, NAMES, 3), UNLABELLED)


PARTS = Split(chats(36), chats(12, seed=1), [])
TEXTS = texts_of(PARTS.train, PARTS.validation)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("encoders")
    encoder = save_encoder(folder / "teacher", num_hidden_layers=2, max_position_embeddings=256)
    student = save_encoder(folder / "student", num_hidden_layers=1, hidden_size=16)
    return Recipe(
        encoder=encoder, teachers=2, teacher_epochs=1, student=student, student_epochs=1,
        noise=1, mixtures=1, heads=3, neurons=24, recovery_epochs=1, vocabulary=150, int8_tolerance=100.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stages(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("work"), PARTS, recipe)


@pytest.fixture(scope="module")
def made(recipe: Recipe, stages: Stages) -> Compressed:
    return compress(TEXTS, recipe, stages)


def test_networks_come_in_the_order_of_the_steps(made: Compressed) -> None:
    assert list(made.networks) == ["teacher", "student", "pruned", "int8"]
    assert all(path.is_file() for path in made.networks.values())
    assert made.served == made.networks["int8"]
    sizes = [path.stat().st_size for path in made.networks.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert [is_int8(path) for path in made.networks.values()] == [False, False, False, True]


def test_every_network_answers_as_the_one_that_was_trained(made: Compressed, stages: Stages) -> None:
    teachers, (student, _), pruned = (stages.run(name, fail) for name in ("teachers", "student", "pruned"))
    assert len(teachers) == 2
    assert [len(layer_stack(net.encoder)) for net in (teachers[0], student, pruned)] == [2, 1, 1]
    assert [(block.heads, block.neurons) for block in blocks(pruned.encoder)] == [(3, 24)]
    assert [net.pooling for net in (*teachers, student, pruned)] == ["mean", "mean", "cls", "cls"]
    for name, net in (("teacher", teachers[0]), ("student", student), ("pruned", pruned)):
        pre = made.teacher_preprocessor if name == "teacher" else made.preprocessor
        rows = pre.tokens(TEXTS.held)
        assert np.allclose(TextClassifier(made.networks[name])(rows), logits(net, rows), atol=1e-4)
    rows = made.preprocessor.tokens(TEXTS.held)
    assert np.abs(TextClassifier(made.served)(rows) - logits(pruned, rows)).mean() < 0.1


def test_student_has_a_smaller_vocabulary_and_the_teacher_its_own(made: Compressed, stages: Stages) -> None:
    wide, narrow = (pre.tokenizer.get_vocab_size() for pre in (made.teacher_preprocessor, made.preprocessor))
    assert narrow < wide
    assert (stages.folder / "tokenizer.json").is_file()
    assert (stages.folder / "teacher_tokenizer.json").is_file()


def test_unlabelled_texts_are_in_the_transfer_set(made: Compressed, stages: Stages) -> None:
    transfer = stages.run("transfer", fail)
    assert transfer.texts[-1:] == list(UNLABELLED)
    assert len(transfer.texts) == 3 * len(TEXTS.train) + 1


def test_finished_run_is_not_trained_again(made: Compressed, recipe: Recipe, stages: Stages) -> None:
    def state() -> dict[str, int]:
        files = [
            *stages.folder.parent.glob("*.pt"),
            *(made.networks[name] for name in ("teacher", "student", "pruned")),
        ]
        return {path.name: path.stat().st_mtime_ns for path in files}

    before, content = state(), made.served.read_bytes()
    again = compress(TEXTS, recipe, Stages(stages.folder.parent, PARTS, recipe))
    assert len(before) == 7
    assert state() == before
    assert again.networks == made.networks
    assert again.served.read_bytes() == content
    assert again.preprocessor.fingerprint == made.preprocessor.fingerprint


@pytest.mark.parametrize("name", ["teacher", "student", "pruned"])
def test_a_damaged_network_is_named_and_exported_again(
    made: Compressed, recipe: Recipe, stages: Stages, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.networks[name]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    compress(TEXTS, recipe, stages)
    assert path.read_bytes() == content
    assert f"warning: {path} is damaged (" in capsys.readouterr().err


def test_a_stage_that_was_made_again_is_exported_again(
    made: Compressed, recipe: Recipe, stages: Stages, tmp_path: Path
) -> None:
    work = shutil.copytree(stages.folder.parent, tmp_path / "work")
    copied = Stages(work, PARTS, recipe)
    pruned = copied.run("pruned", fail)
    copied.path("pruned").unlink()
    with torch.no_grad():
        pruned.head.bias.add_(torch.arange(3.0))
    copied.run("pruned", lambda: pruned)
    again = compress(TEXTS, recipe, copied)
    rows = again.preprocessor.tokens(TEXTS.held)
    assert np.allclose(TextClassifier(again.networks["pruned"])(rows), logits(pruned, rows), atol=1e-4)


def test_teacher_itself_may_be_served_in_half_precision(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder", num_hidden_layers=1)
    recipe = Recipe(encoder=encoder, teachers=1, teacher_epochs=1, student="teacher", quantization="fp16")
    found = compress(TEXTS, recipe, Stages(tmp_path / "work", PARTS, recipe))
    assert list(found.networks) == ["teacher", "fp16"]
    assert found.preprocessor is found.teacher_preprocessor
    rows = found.preprocessor.tokens(TEXTS.held)
    teacher, half = (TextClassifier(path)(rows) for path in found.networks.values())
    assert np.allclose(teacher, half, atol=0.02)
    assert 2 * found.served.stat().st_size < 1.4 * found.networks["teacher"].stat().st_size


@pytest.mark.parametrize(
    ("words", "told", "limit"), [(7, 0, 96), (110, 0, 112), (127, 0, 144), (900, 0, 192), (900, 40, 40)]
)
def test_limit_of_tokens_is_told_or_fits_the_training_texts(recipe: Recipe, words: int, told: int, limit: int) -> None:
    long = [Example(" ".join([FILLERS[i % 40], *FILLERS[:20] * 50][:words]), "cards") for i in range(30)]
    asked = Recipe(encoder=recipe.encoder, max_tokens=told)
    assert teacher_preprocessor(texts_of(long, []), asked).config.max_tokens == limit


@pytest.mark.parametrize(("words", "limit"), [(7, 64), (900, 64)])
def test_limit_of_tokens_is_never_beyond_the_encoder(tmp_path: Path, words: int, limit: int) -> None:
    encoder = save_encoder(tmp_path / "short", max_position_embeddings=64)
    long = [Example(" ".join([*FILLERS * 20][:words]), "cards")]
    assert teacher_preprocessor(texts_of(long, []), Recipe(encoder=encoder)).config.max_tokens == limit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 257}, "--max-tokens 257: the encoder takes 256 tokens at the most: give 8 to 256"),
        ({"student": "layers", "student_layers": 3}, "--student-layers 3: the encoder has 2 of them: give no more"),
        ({"heads": 5}, "--heads 5: the encoder has 4 of them a layer: give no more"),
        ({"heads": 8, "neurons": 65}, "--neurons 65: the encoder has 64 of them a layer: give no more"),
        ({"max_tokens": 129}, "--student .*student: it takes 128 tokens at the most: give --max-tokens 128"),
    ],
    ids=[
        "longer than the encoder",
        "more layers than the encoder",
        "more heads",
        "more neurons",
        "longer than the student",
    ],
)
def test_what_an_encoder_cannot_do_is_refused_before_anything_is_trained(
    recipe: Recipe, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    asked = replace(recipe, **options)
    with pytest.raises(OptionError, match=message):
        compress(TEXTS, asked, Stages(tmp_path, PARTS, asked))
    assert not list(tmp_path.glob("*.pt"))


def save_mpnet(folder: Path) -> str:
    """An encoder of another family, with the tokenizer of `save_encoder`."""
    saved = save_encoder(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    MPNetModel(MPNetConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(saved)
    return saved


@pytest.mark.parametrize("student", ["layers", None])
def test_an_encoder_of_another_family_is_refused_with_what_would_do(
    recipe: Recipe, tmp_path: Path, student: str | None
) -> None:
    folder = save_mpnet(tmp_path / "other")
    asked = replace(recipe, encoder=folder, student=student or folder)
    with pytest.raises(
        UnknownEncoder,
        match=rf"^encoder {folder}: MPNetLayer: cannot be pruned: .*: give another --student, .* or --student teacher",
    ):
        compress(TEXTS, asked, Stages(tmp_path / "work", PARTS, asked))
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("family", ["xlnet", "t5"])
def test_an_encoder_that_cannot_be_exported_is_refused_before_the_training(
    tmp_path: Path, recipe: Recipe, family: str
) -> None:
    """XLNet trains, and T5 wants a text for its decoder."""
    folder = save_encoder(tmp_path / "encoder")
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32}
    if family == "t5":
        made: Any = T5Model(T5Config(**sizes, d_kv=16, d_ff=64, num_layers=2, num_heads=2))
    else:
        made = XLNetModel(XLNetConfig(**sizes, n_layer=2, n_head=2, d_inner=64))
    made.save_pretrained(folder)
    asked = replace(recipe, encoder=folder, student="teacher")
    match = f"^encoder {folder}: networks of the family {family} cannot be exported to ONNX .*: give a BERT-like"
    with pytest.raises(UnknownEncoder, match=match):
        compress(TEXTS, asked, Stages(tmp_path / "work", PARTS, asked))
    assert not list(tmp_path.rglob("*.pt"))


def test_an_encoder_of_another_family_is_tried(tmp_path: Path) -> None:
    folder = save_mpnet(tmp_path / "encoder")
    require_exportable(folder)


def test_sample_of_the_training_texts_is_repeatable(recipe: Recipe) -> None:
    many = texts_of(chats(1600), [])
    pre = teacher_preprocessor(many, recipe)
    (rows, targets), (again, _), (other, _) = (many.sample(pre, seed) for seed in (0, 0, 1))
    assert len(rows) == len(targets) == 1500
    assert [row.tolist() for row in rows] == [row.tolist() for row in again]
    assert [row.tolist() for row in rows] != [row.tolist() for row in other]


def test_a_network_is_trained_for_int8_where_that_loses_too_much(
    made: Compressed, recipe: Recipe, stages: Stages
) -> None:
    """With a tolerance below what can be lost, always; the better of both files is served."""
    asked = replace(recipe, int8_tolerance=-100.0)
    before = set(stages.folder.parent.glob("*.pt"))
    own = Stages(stages.folder.parent, PARTS, asked)
    found = compress(TEXTS, asked, own)
    assert set(stages.folder.parent.glob("*.pt")) - before == {own.path("aware")}, "the other stages were taken over"
    aware, pruned = own.run("aware", fail), own.run("pruned", fail)
    assert any(not torch.equal(aware.state_dict()[name], value) for name, value in pruned.state_dict().items())
    assert list(found.networks) == ["teacher", "student", "pruned", "int8"]
    rows, targets = TEXTS.validation(found.preprocessor)
    right = {
        name: share_right(TextClassifier(own.folder / name)(rows), targets) for name in ("int8.onnx", "int8_aware.onnx")
    }
    assert right[found.served.name] == max(right.values())
