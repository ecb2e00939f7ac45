"""What needs no network: a translation memory, a dictionary word by word, and leaving the English as it is."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from data import Pair
from near import letters, trigrams


class TranslationMemory:
    """Gives the French of the training pair whose English has the most trigrams of letters in common (Jaccard index), the shorter on a tie."""

    def __init__(self, trained: Sequence[Pair]):
        self._trained = sorted(trained, key=lambda pair: len(pair.english))
        grams = [trigrams(pair.english) for pair in self._trained]
        self._sizes = np.array([len(own) for own in grams])
        having: dict[str, list[int]] = defaultdict(list)
        for i, own in enumerate(grams):
            for gram in own:
                having[gram].append(i)
        self._having = {gram: np.array(found) for gram, found in having.items()}

    def translate(self, english: str) -> str:
        own = trigrams(english)
        found = [self._having[gram] for gram in own if gram in self._having]
        if not found:
            return english
        shared = np.bincount(np.concatenate(found), minlength=len(self._sizes))
        return self._trained[int(np.argmax(shared / (self._sizes + len(own) - shared)))].french


class Dictionary:
    """Word by word: each word becomes its French one, and stays as it is where there is none. words: French by English."""

    def __init__(self, words: dict[str, str]):
        self.words = words

    @classmethod
    def learned(cls, trained: Sequence[Pair]) -> "Dictionary":
        """Each word's French one is that which goes with it most often beyond chance (Dice coefficient)."""
        english, french, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
        for pair in trained:
            ours, theirs = set(letters(pair.english).split()), set(pair.french.lower().split())
            english.update(ours)
            french.update(theirs)
            both.update((e, f) for e in ours for f in theirs)
        best: dict[str, tuple[float, str]] = {}
        for (e, f), n in both.items():
            best[e] = max(best.get(e, (-math.inf, "")), (2 * n / (english[e] + french[f]), f))
        return cls({e: f for e, (_, f) in best.items()})

    def translate(self, english: str) -> str:
        return " ".join(self.words.get(letters(word), word) for word in english.split())
