"""The text network: padding, pooling, encoders from a folder, and smaller embedding tables."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertModel, RobertaConfig, RobertaModel

from features.preprocess import PreprocessConfig
from models.distil import from_scratch
from models.networks import TextNet, encoder_folder, keep_embeddings, load_encoder, pad, token_limit
from models.recipe import OptionError
from tests.unit.tiny import VOCABULARY, bert, distilbert, logits, random_rows, save_encoder, tokenizer

FAMILIES = {"bert": bert, "distilbert": distilbert}
family = st.sampled_from(sorted(FAMILIES))
some_rows = st.lists(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=9), min_size=1, max_size=6)


@given(some_rows)
def test_padding_marks_the_rows_own_tokens(rows: list[list[int]]) -> None:
    ids, mask = pad([np.array(row, dtype=np.int32) for row in rows])
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    assert ids.dtype == mask.dtype == torch.int32
    assert [line[line_mask == 1].tolist() for line, line_mask in zip(ids, mask, strict=True)] == rows
    assert not ids[mask == 0].any()


@settings(max_examples=20)
@given(family, st.lists(st.integers(0, 29), min_size=1, max_size=8), st.integers(0, 20))
def test_logits_of_a_row_do_not_depend_on_its_neighbours(name: str, chosen: list[int], padding: int) -> None:
    net, rows = FAMILIES[name](), random_rows(30)
    ids, mask = (nn.functional.pad(part, (0, padding)) for part in pad([rows[i] for i in chosen]))
    with torch.inference_mode():
        found = net(ids, mask).numpy()
    assert np.allclose(found, [logits(net, [rows[i]])[0] for i in chosen], atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_the_mean_of_the_real_tokens_or_the_first(pooling: str) -> None:
    net, rows = bert(), random_rows(2)
    net.pooling = pooling
    ids, mask = pad(rows)
    with torch.inference_mode():
        pooled = net.embed(ids, mask)
        for row, found in zip(rows, pooled, strict=True):
            alone = torch.from_numpy(row)[None].long()
            hidden = net.encoder(input_ids=alone, attention_mask=torch.ones_like(alone)).last_hidden_state[0]
            assert torch.allclose(found, hidden.mean(0) if pooling == "mean" else hidden[0], atol=1e-5)
        assert torch.isfinite(net.embed(torch.zeros(1, 3), torch.zeros(1, 3))).all()


def test_encoder_of_a_folder_has_no_dropout_and_no_pooler(tmp_path: Path) -> None:
    encoder, tokenizer = load_encoder(save_encoder(tmp_path, hidden_dropout_prob=0.3))
    dropouts = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert all(dropout.p == 0 for dropout in dropouts)
    assert encoder.pooler is None
    assert tokenizer.encode("Card").tokens == ["[CLS]", "card", "[SEP]"]
    assert TextNet(encoder, 4)(*pad(random_rows(3))).shape == (3, 4)


def broken(folder: Path, fault: str) -> str:
    """The folder of an encoder that cannot be used."""
    if fault == "absent":
        return str(folder)
    folder.mkdir()
    if fault == "empty":
        return str(folder)
    save_encoder(folder, vocab_size=VOCABULARY // 2 if fault == "few rows" else VOCABULARY)
    if change := {"other shapes": {"hidden_size": 64}, "unknown activation": {"hidden_act": "gulp"}}.get(fault):
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))
    if fault == "another tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    for path in folder.glob("token*" if fault == "no tokenizer" else "no such file"):
        path.unlink()
    if (folder / fault).is_file():
        (folder / fault).write_bytes((folder / fault).read_bytes()[:300])
    return str(folder)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("absent", "no such folder"),
        ("empty", "no config.json in this folder"),
        ("config.json", "not a valid JSON file"),
        ("model.safetensors", "header"),
        ("tokenizer.json", "Expecting|Unterminated|delimiter"),
        ("another tokenizer", "KeyError"),
        ("other shapes", "RuntimeError"),
        ("unknown activation", "KeyError"),
        ("no tokenizer", "its tokenizer knows no words"),
    ],
)
def test_an_encoder_that_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path, fault: str, told: str) -> None:
    folder = broken(tmp_path / "encoder", fault)
    with pytest.raises(OptionError, match=told) as refused:
        load_encoder(folder)
    assert str(refused.value).startswith(f"encoder {folder}: ")
    assert str(refused.value).endswith(
        ": --encoder and --student take a folder with config.json, weights and a tokenizer, or a hub id"
    )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", ["bfloat16", "float16"])
def test_an_encoder_that_was_kept_in_half_precision_is_trained_in_full(tmp_path: Path, kept: str) -> None:
    folder = save_encoder(tmp_path / "encoder")
    BertModel.from_pretrained(folder, dtype=getattr(torch, kept)).save_pretrained(folder)
    teacher = TextNet(load_encoder(folder)[0], 3)
    for net in (teacher, from_scratch(teacher, 1, seed=0)):
        assert {weight.dtype for weight in net.parameters()} == {torch.float32}


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused(tmp_path: Path) -> None:
    size, folder = tokenizer().get_vocab_size(), broken(tmp_path / "encoder", "few rows")
    told = f"encoder {folder}: its tokenizer has {size} tokens and its embedding table 120 rows: save it again"
    with pytest.raises(OptionError, match=told):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("encoder.layer.1.output.dense.weight", None, "its files lack 1 weights, such as {key}"),
        ("embeddings.word_embeddings.weight", math.nan, "its weights {key} are not all finite"),
        ("encoder.layer.0.output.LayerNorm.bias", math.inf, "its weights {key} are not all finite"),
    ],
)
def test_weights_that_would_be_chance_or_no_numbers_are_refused(
    tmp_path: Path, key: str, change: float | None, told: str
) -> None:
    folder = save_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change is None:
        del weights[key]
    else:
        weights[key][..., -1] = change
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OptionError, match=told.format(key=key)):
        load_encoder(folder)


def test_a_pooler_that_is_missing_is_not_missed(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {key: weight for key, weight in weights.items() if not key.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder)[0].pooler is None


def test_limit_of_tokens_is_the_number_of_usable_positions() -> None:
    config = RobertaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=60
    )
    roberta = RobertaModel(config)
    assert [token_limit(encoder) for encoder in (bert().encoder, distilbert().encoder, roberta)] == [128, 64, 58]
    longest = torch.full((1, 58), 7)
    assert roberta(input_ids=longest).last_hidden_state.shape == (1, 58, 32)
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, 59), 7))


@pytest.mark.parametrize("config", [{}, {"max_position_embeddings": -1}], ids=["T5", "XLNet"])
def test_an_encoder_without_a_limit_takes_what_preprocessing_does(config: dict[str, int]) -> None:
    assert token_limit(SimpleNamespace(config=SimpleNamespace(**config))) == 512
    assert PreprocessConfig(max_tokens=512).max_tokens == 512


def test_default_encoder_is_that_of_its_package() -> None:
    folder = Path(encoder_folder("default"))
    assert (folder / "tokenizer.json").is_file()
    assert encoder_folder("some/encoder") == "some/encoder"


@settings(max_examples=15)
@given(family, st.lists(st.integers(0, VOCABULARY - 1), min_size=2, unique=True).map(sorted), st.integers(8, 200))
def test_kept_pieces_and_positions_answer_as_before(name: str, kept: list[int], positions: int) -> None:
    whole, smaller = FAMILIES[name](), FAMILIES[name]()
    keep_embeddings(smaller.encoder, np.array(kept), positions)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(kept), rng.integers(1, min(positions, 24) + 1)).astype(np.int32) for _ in range(8)]
    before = logits(whole, [np.array(kept, dtype=np.int32)[row] for row in rows])
    assert np.allclose(logits(smaller, rows), before, atol=1e-5)
    table = smaller.encoder.get_input_embeddings()
    assert table.weight.shape == (len(kept), 32)
    assert table.weight.requires_grad
    assert smaller.encoder.config.vocab_size == len(kept)
    if name == "bert":
        config = smaller.encoder.config
        assert config.max_position_embeddings == min(positions, 128)
        assert smaller.encoder.embeddings.position_embeddings.weight.shape == (config.max_position_embeddings, 32)


def test_table_that_is_kept_whole_stays_the_same() -> None:
    net = bert()
    table = net.encoder.get_input_embeddings()
    keep_embeddings(net.encoder, np.arange(VOCABULARY), 512)
    assert net.encoder.get_input_embeddings() is table


@pytest.mark.parametrize("positions", [8, 40])
def test_positions_of_other_families_stay(positions: int) -> None:
    """RoBERTa counts positions from its padding id, so the table's rows are others."""
    config = RobertaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=60
    )
    encoder = RobertaModel(config)
    keep_embeddings(encoder, np.arange(50), positions)
    assert encoder.embeddings.position_embeddings.weight.shape == (60, 32)
