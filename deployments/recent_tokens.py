"""The tokens of texts that came before: a lookup costs a hundredth of normalising and tokenising a text again."""

from collections.abc import Sequence

from features.preprocess import Ids, Preprocessor

ENTRIES = 16_384
LONGEST = 256
"""Characters of a text that is remembered: longer ones hardly ever come twice."""


class RecentTokens:
    """A preprocessor's `tokens` with a memory of `entries` to twice as many texts, about 0.5 kB each.

    Two generations stand for the order of use: when the young one is full it becomes the old one, whose texts are
    forgotten unless they come again. Not thread-safe.
    """

    def __init__(self, preprocessor: Preprocessor, entries: int = ENTRIES, longest: int = LONGEST) -> None:
        self._preprocessor, self._entries, self._longest = preprocessor, entries, longest
        self._young: dict[str, Ids] = {}
        self._old: dict[str, Ids] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """What `Preprocessor.tokens` gives for the texts. The arrays are shared: do not write into them."""
        rows = [self._known(text) for text in texts]
        new = [i for i, row in enumerate(rows) if row is None]
        for i, row in zip(new, self._preprocessor.tokens([texts[i] for i in new]) if new else (), strict=True):
            rows[i] = row
            self._remember(texts[i], row)
        return [row for row in rows if row is not None]

    def _known(self, text: str) -> Ids | None:
        row = self._young.get(text)
        if row is None:
            row = self._old.get(text)
            if row is not None:
                self._remember(text, row)
        return row

    def _remember(self, text: str, row: Ids) -> None:
        if len(text) > self._longest:
            return
        if len(self._young) >= self._entries:
            self._old, self._young = self._young, {}
        self._young[text] = row
