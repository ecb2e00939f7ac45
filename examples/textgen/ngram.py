"""The plain method: characters given the last few, interpolated Kneser-Ney (Chen and Goodman 1999, section 4.1.6).

With D = n1 / (n1 + 2 n2) of each order, P(c | h) = (max(N(hc) - D, 0) + D * T(h) P(c | h')) / N(h), where N counts, of the highest
order, occurrences, of the lower ones the characters seen before; T(h) is how many characters were seen after h, and h' is h
without its first one. Below the first order all characters are alike.
"""

from collections.abc import Sequence

import numpy as np

ALPHABET = ["", "\n", "\t", *map(chr, range(32, 127))]  # the first ends a text, and stands before its beginning
SIZE = len(ALPHABET)
_CODE = np.zeros(128, np.int64)
_CODE[[ord(c) for c in ALPHABET[1:]]] = np.arange(1, SIZE)


class NGrams:
    """Of up to nine characters, since their number has to fit into 63 bits."""

    def __init__(self, texts: Sequence[str], order: int = 5):
        if not 1 <= order <= 9:
            raise ValueError(f"order is {order}, expected 1 to 9")
        self.order = order
        grams, counts = np.unique(np.concatenate([keys(t, order) for t in texts]), return_counts=True)
        self._levels = [_Level(grams, counts)]
        for n in range(order - 1, 0, -1):
            grams, counts = np.unique(grams % SIZE**n, return_counts=True)
            self._levels.insert(0, _Level(grams, counts))

    def bits(self, text: str) -> np.ndarray:
        """What each character and the end cost, (len(text) + 1,)."""
        whole = keys(text, self.order)
        p = np.full(len(whole), 1 / SIZE)
        for n, level in enumerate(self._levels, start=1):
            p = level.probabilities(whole % SIZE**n, p)
        return -np.log2(p)


def keys(text: str, order: int) -> np.ndarray:
    """Of each character and the end, the number that the last `order` characters are in base SIZE, int64."""
    codes = np.zeros(len(text) + order, np.int64)
    codes[order - 1 : -1] = _CODE[np.frombuffer(text.encode("ascii"), np.uint8)]
    found = np.zeros(len(text) + 1, np.int64)
    for i in range(order):
        found = found * SIZE + codes[i : i + len(found)]
    return found


class _Level:
    """The grams of one order, sorted, and how often each is counted."""

    def __init__(self, grams: np.ndarray, counts: np.ndarray):
        self._grams, self._counts = grams, counts
        self._before, first = np.unique(grams // SIZE, return_index=True)
        self._totals = np.add.reduceat(counts, first)
        self._kinds = np.diff(np.append(first, len(grams)))
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self._discount = once / (once + 2 * twice) if once else 0.0

    def probabilities(self, grams: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Of each gram's last character given those before it; `below`: what the order below says."""
        at = np.minimum(np.searchsorted(self._grams, grams), len(self._grams) - 1)
        counts = np.where(self._grams[at] == grams, self._counts[at], 0)
        at = np.minimum(np.searchsorted(self._before, grams // SIZE), len(self._before) - 1)
        seen = self._before[at] == grams // SIZE
        mixed = (np.maximum(counts - self._discount, 0) + self._discount * self._kinds[at] * below) / self._totals[at]
        return np.where(seen, mixed, below)
