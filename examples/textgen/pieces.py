"""Byte pairs: text as pieces that were merged from characters, the most frequent pair first (Sennrich, Haddow, Birch 2016)."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

END = 0  # the piece that ends a text and comes before its first one
CHARACTERS = ["\n", "\t", *map(chr, range(32, 127))]
WORD = re.compile(r"\n\s+-- | ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")  # no piece reaches over two of these


class Pieces:
    """Text to ids and back. merges: pairs of pieces in the order in which they were learnt; names: every piece by its id."""

    def __init__(self, merges: list[tuple[str, str]]):
        self.merges = merges
        self.names = ["", *CHARACTERS, *(a + b for a, b in merges)]
        self._rank = {pair: i for i, pair in enumerate(merges)}
        self._ids = {name: i for i, name in enumerate(self.names)}
        self._of_word = lru_cache(maxsize=100_000)(self._merged)

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError where a character has no piece."""
        strange = set(text).difference(CHARACTERS)
        if strange:
            raise ValueError(f"{text[:40]!r} has {min(strange)!r}, expected tabs, ends of lines and printable ASCII")
        return [i for word in WORD.findall(text) for i in self._of_word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.names[i] for i in ids)

    def _merged(self, word: str) -> list[int]:
        parts = list(word)
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._rank.get(pair, len(self.merges)))
            if best not in self._rank:
                break
            parts = merge(parts, best)
        return [self._ids[p] for p in parts]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.merges, indent=None) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Pieces":
        return cls([(a, b) for a, b in json.loads(path.read_text())])


def learn(texts: Iterable[str], size: int) -> Pieces:
    """`size` pieces: the end, every character, and merges of the pair that is the most frequent, ties to the first in order."""
    counts = Counter(word for text in texts for word in WORD.findall(text))
    words, times = [list(w) for w in counts], list(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    for i, parts in enumerate(words):
        for pair in pairwise(parts):
            pairs[pair] += times[i]
            where[pair].add(i)
    merges = []
    while len(merges) < size - 1 - len(CHARACTERS):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for i in where.pop(best):
            for pair in pairwise(words[i]):
                pairs[pair] -= times[i]
            words[i] = merge(words[i], best)
            for pair in pairwise(words[i]):
                pairs[pair] += times[i]
                where[pair].add(i)
        del pairs[best]
    return Pieces(merges)


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with each occurrence of the pair, from the left, as one."""
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
