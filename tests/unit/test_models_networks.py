"""The text network: padding, pooling, encoders from a folder, and smaller embedding tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import RobertaConfig, RobertaModel

from models.networks import TextNet, encoder_folder, keep_embeddings, load_encoder, pad
from tests.unit.tiny import VOCABULARY, bert, distilbert, logits, random_rows, save_encoder

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


def test_pooling_is_the_mean_of_the_real_tokens() -> None:
    net, rows = bert(), random_rows(2)
    ids, mask = pad(rows)
    with torch.inference_mode():
        pooled = net.embed(ids, mask)
        for row, found in zip(rows, pooled, strict=True):
            alone = torch.from_numpy(row)[None].long()
            hidden = net.encoder(input_ids=alone, attention_mask=torch.ones_like(alone)).last_hidden_state[0]
            assert torch.allclose(found, hidden.mean(0), atol=1e-5)
        assert torch.isfinite(net.embed(torch.zeros(1, 3), torch.zeros(1, 3))).all()


def test_encoder_of_a_folder_has_no_dropout_and_no_pooler(tmp_path: Path) -> None:
    encoder, tokenizer = load_encoder(save_encoder(tmp_path, hidden_dropout_prob=0.3))
    dropouts = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert all(dropout.p == 0 for dropout in dropouts)
    assert encoder.pooler is None
    assert tokenizer.encode("Card").tokens == ["[CLS]", "card", "[SEP]"]
    assert TextNet(encoder, 4)(*pad(random_rows(3))).shape == (3, 4)


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
