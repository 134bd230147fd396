"""A tiny world for the training pipeline: chats about three products, a WordPiece tokenizer, small encoders."""

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

from features.preprocess import Ids, PreprocessConfig, Preprocessor
from models.data import OUT_OF_SCOPE, Example
from models.networks import Floats, TextNet, pad

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PRODUCTS = {
    "cards": ("card", "declined", "plastic", "chip", "terminal"),
    "loans": ("loan", "repay", "lender", "mortgage", "debt"),
    "travel": ("trip", "hotel", "flight", "luggage", "airport"),
}
STRANGE = ("weather", "joke", "song", "pizza", "football")
_FILLERS = (
    "about after again all also always and any ask away back bad because been before best big both bring but call "
    "came can check come could day did do done down each even every far feel few find first for from get give go good "
    "great had happen have hear help here home how if in into is it just keep know last late left let like little long "
    "look made make many may me might money month more most much must my need never new next no not now of off often"
)
FILLERS = tuple(_FILLERS.split())
WORDS = (*(word for words in PRODUCTS.values() for word in words), *STRANGE, *FILLERS)
VOCABULARY = 240


def chat(topic: Sequence[str], rng: random.Random) -> str:
    """A message: two words that tell the topic among five that do not."""
    words = [*rng.sample(topic, 2), *rng.sample(FILLERS, 5)]
    rng.shuffle(words)
    return " ".join(words)


def chats(count: int, seed: int = 0) -> list[Example]:
    """Labelled messages without context, the products in turn."""
    rng, names = random.Random(seed), sorted(PRODUCTS)
    return [Example(chat(PRODUCTS[name], rng), name) for name in (names[i % 3] for i in range(count))]


def strange_chats(count: int, seed: int = 0) -> list[Example]:
    """Messages about none of the products."""
    rng = random.Random(seed)
    return [Example(chat(STRANGE, rng), OUT_OF_SCOPE) for _ in range(count)]


def with_contexts(count: int, seed: int = 0) -> list[Example]:
    """Messages without a word about a product, which the screens and the usage settle."""
    rng, names = random.Random(seed), sorted(PRODUCTS)
    picked = [names[i % 3] for i in range(count)]
    return [Example(" ".join(rng.sample(FILLERS, 6)), name, ("home", f"{name}_page"), {name: 3}) for name in picked]


def tokenizer() -> Tokenizer:
    """Lower-case WordPiece: special tokens, characters, continuing characters and whole words."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*SPECIAL, *characters, *(f"##{letter}" for letter in string.ascii_lowercase), *WORDS]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = BertNormalizer()
    made.pre_tokenizer = BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    made.add_special_tokens(list(SPECIAL))
    return made


def preprocessor() -> Preprocessor:
    return Preprocessor(PreprocessConfig(max_tokens=32), tokenizer())


def bert(seed: int = 0, outputs: int = 3, **changes: Any) -> TextNet:
    """Random BERT without dropout: three layers, four heads, 64 neurons, 32 numbers a token."""
    torch.manual_seed(seed)
    return _net(BertModel(_bert_config(**changes), add_pooling_layer=False), outputs)


def learner(seed: int = 0) -> TextNet:
    """The same with small weights, as networks have them before training."""
    torch.manual_seed(seed)
    return TextNet(BertModel(_bert_config(initializer_range=0.1), add_pooling_layer=False), 3, dropout=0.0)


def distilbert(seed: int = 0, outputs: int = 3) -> TextNet:
    """Random DistilBERT of the same size."""
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=64,
        dropout=0.0, attention_dropout=0.0, initializer_range=0.3,
    )  # fmt: skip
    return _net(DistilBertModel(config), outputs)


def _bert_config(**changes: Any) -> BertConfig:
    options: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 128, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
    }  # fmt: skip
    return BertConfig(**(options | changes))


def _net(encoder: Any, outputs: int) -> TextNet:
    """With all the weights drawn wide, biases and norms too, so that a part which is left out shows; no favourite."""
    net = TextNet(encoder, outputs).eval()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
        net.head.weight.normal_(std=0.5)
        net.head.bias.sub_(net(*pad(random_rows(50))).mean(0))
    return net


def save_encoder(folder: Path, **changes: Any) -> str:
    """The folder of a saved BERT and its tokenizer, as `recipe.encoder` takes it."""
    torch.manual_seed(0)
    BertModel(_bert_config(initializer_range=0.1, **changes)).save_pretrained(folder)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer(), **names).save_pretrained(folder)
    return str(folder)


def random_rows(count: int, seed: int = 0, longest: int = 24) -> list[Ids]:
    """Token vectors of many lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(5, VOCABULARY, rng.integers(2, longest + 1)).astype(np.int32) for _ in range(count)]


def one_hot(columns: Sequence[int], outputs: int = 3) -> Floats:
    return np.eye(outputs, dtype=np.float32)[list(columns)]


def logits(net: TextNet, rows: Sequence[Ids]) -> Floats:
    """(n, outputs) in fp32, all the rows in one padded batch."""
    with torch.inference_mode():
        answer: Floats = net.cpu().eval()(*pad(rows)).numpy()
    return answer


def weights(net: TextNet) -> Tensor:
    """All the numbers of a network in one row, by the names of their tables."""
    return torch.cat([value.detach().flatten() for _, value in sorted(net.state_dict().items())])


def fail() -> Any:
    """A stage that must not be made, or that cannot be."""
    raise RuntimeError("out of memory")
