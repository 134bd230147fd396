"""The one function that turns a conversation into model input.

Training, batch pipelines and serving all call `Preprocessor`; none re-implements a step of it. Its
`fingerprint` covers the configuration, the tokenizer and the outputs on a fixed set of probes, so a change
of behaviour, whether by code, by data or by a library, is noticed when a bundle is loaded.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

Ids = npt.NDArray[np.int32]

MASK = "#"
END = 4000
"""Characters of a normalised text at either end that are tokenised: all of a message that the API takes, and more."""
_SPACES = re.compile(r"\s+")
_LETTER_RUNS = re.compile(r"([^\W\d_])\1{2,}")
_SYMBOL_RUNS = re.compile(r"([^\w\s])\1{3,}")

PROBES = (
    "",
    "It got DECLINED again!!!!!!",
    "card 4111 1111-1111 1111 exp 12/29",
    "IBAN DE89 3704 0044 0532 0130 00, cpf 123.456.789-09",
    "paid R$ 1.234,56 on 3 Nov at 10:45",
    "n\u00e3o consigo pagar o boleto \U0001f62d\U0001f62d ajuda pfv",
    "zero\u200bwidth \u00adsoft\ufeff \x00ctl\x1f\ttab\r\nline\u2028sep",
    "\uff14\uff11\uff11\uff11\uff11\uff11\uff11\uff11 \u0664\u0661\u0661\u0661\u0661\u0661\u0661\u0661",
    "\ud800 lone surrogate \ue000 private",
    "z\u0351\u036ba\u0300\u0301lgo \u1e9e \u0130stanbul \ufb01ne",
    "sooooooo slooooow whyyyyy",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627",
    "a " * 300,
)


class PreprocessConfig(BaseModel):
    """How text and context become model input. Every field is part of the fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=96, ge=8, le=512)
    """Longest model input in tokens, the two special ones included. Longer text keeps head and tail."""
    mask_run: int = Field(default=6, ge=3)
    """Unbroken runs of this many digits are masked."""
    mask_group: int = Field(default=8, ge=3)
    """Groups of this many digits, with up to three separators between neighbours, are masked."""
    max_screens: int = Field(default=5, ge=1, le=50)
    """The newest screens that count."""
    max_usage: int = Field(default=1000, ge=1)
    """Uses of one product above this count as this."""


@dataclass(frozen=True, slots=True)
class ContextInput:
    """What the context part of the model sees. Screens are oldest first, usage is positive and capped."""

    recent_screens: tuple[str, ...]
    product_usage_60d: Mapping[str, int]


class _Keep(dict[int, int | str | None]):
    """`str.translate` table: drops invisible and unassigned characters, turns white space into blanks."""

    def __missing__(self, code: int) -> int | str | None:
        char = chr(code)
        category = unicodedata.category(char)
        kept: int | str | None = code
        if char.isspace():
            kept = " "
        elif category[0] == "C" or category in ("Mn", "Me"):
            kept = None
        self[code] = kept
        return kept


_KEEP = _Keep()


def _fold(text: str) -> str:
    """Compatibility-decompose, case-fold and drop marks until nothing changes; two or three rounds."""
    if text.isascii():
        return text.lower().translate(_KEEP)
    for _ in range(8):
        folded = unicodedata.normalize("NFKD", text).translate(_KEEP).casefold()
        folded = unicodedata.normalize("NFKC", folded)
        if folded == text:
            break
        text = folded
    return text


def _ends(text: str) -> str:
    """The beginning and the end of a text that is far longer than the model's input; others as they are.

    Decomposition turns some characters into eighteen; tokens from the middle would be truncated anyway.
    """
    return text if len(text) <= 2 * END else f"{text[:END]} {text[-END:]}"


class Preprocessor:
    """Text and context normalisation with tokenisation; pure, thread-safe, total on any string.

    Args:
        config: the settings; part of the fingerprint.
        tokenizer: a `tokenizers.Tokenizer`; its own padding and truncation are switched off.

    Attributes:
        fingerprint: 16 hex digits that change with the configuration, the tokenizer or the outputs on the probes.
        unknown_id: the id of the unknown token; None if the tokenizer has none, as with byte-level vocabularies.
    """

    def __init__(self, config: PreprocessConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        run, rest = config.mask_run, config.mask_group - 1
        self._digits = re.compile(rf"\d(?:[^\w]{{0,3}}\d){{{rest},}}|\d{{{run},}}")
        self.fingerprint = self._fingerprint()
        self.unknown_id = _unknown_id(tokenizer)

    def normalise(self, text: str) -> str:
        """The canonical form of a message, without long digit runs; idempotent. The cache compares this form."""
        text = _fold(text).replace("_", " ")
        text = _SPACES.sub(" ", text).strip()
        text = _LETTER_RUNS.sub(r"\1\1", text)
        text = _SYMBOL_RUNS.sub(r"\1\1\1", text)  # before masking: shortens separators in groups
        text = self._digits.sub(MASK, text)
        return _SYMBOL_RUNS.sub(r"\1\1\1", text)  # again, since masks are symbols

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """Normalise and tokenise messages.

        Returns:
            One int32 vector of 2 to `max_tokens` token ids for each text, special tokens included.
        """
        encodings = self.tokenizer.encode_batch_fast([_ends(self.normalise(text)) for text in texts])
        return [self._truncate(np.asarray(encoding.ids, dtype=np.int32)) for encoding in encodings]

    def context(self, recent_screens: Sequence[str], product_usage_60d: Mapping[str, int]) -> ContextInput:
        """Normalise the features of one conversation. Screens must be oldest first."""
        screens = tuple(name for screen in recent_screens if (name := screen.strip().lower()))
        usage = {
            product: min(int(uses), self.config.max_usage)
            for product, uses in sorted(product_usage_60d.items())
            if uses >= 1
        }
        return ContextInput(screens[-self.config.max_screens :], usage)

    def _truncate(self, ids: Ids) -> Ids:
        limit = self.config.max_tokens
        if len(ids) <= limit:
            return ids
        head = limit // 2
        return np.concatenate([ids[:head], ids[len(ids) - (limit - head) :]])

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        digest.update(self.tokenizer.to_str().encode())
        for probe in PROBES:
            ids = self.tokens([probe])[0].tolist()
            digest.update(json.dumps([self.normalise(probe), ids]).encode())
        context = self.context([" Home ", "", "CARD_LIMIT"] * 4, {"b": 10**9, "a": 1, "c": 0})
        digest.update(json.dumps([context.recent_screens, dict(context.product_usage_60d)]).encode())
        return digest.hexdigest()[:16]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token. Unigram models have it only in the serialised tokenizer."""
    if token := getattr(tokenizer.model, "unk_token", None):
        return tokenizer.token_to_id(token)
    named: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return named


def wordless() -> Preprocessor:
    """A default preprocessor with an empty vocabulary, for work that does not depend on the tokenizer."""
    return Preprocessor(PreprocessConfig(), Tokenizer(WordLevel({"?": 0}, unk_token="?")))
