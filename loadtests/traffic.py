"""What customers send: popular messages repeat by a Zipf law, journeys lead to what is then asked."""

import json
import random
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "models" / "corpus"


@dataclass(frozen=True, slots=True)
class Chat:
    """A message, and the screens that its writer saw before; oldest first."""

    text: str
    screens: tuple[str, ...]


def chats(folder: Path = CORPUS) -> list[Chat]:
    """The messages of the project's corpus; ambiguous ones with the screens that settle them."""
    rows = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append(Chat(row["text"], tuple(row.get("recent_screens", ()))))
    return rows


class Zipf:
    """Draws ranks 0 to n-1 with probability proportional to 1 / (rank + 1) ** exponent."""

    def __init__(self, n: int, exponent: float, rng: random.Random) -> None:
        self._cumulative = list(accumulate((rank + 1) ** -exponent for rank in range(n)))
        self._rng = rng

    def draw(self) -> int:
        return bisect(self._cumulative, self._rng.random() * self._cumulative[-1])
