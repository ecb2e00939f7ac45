"""The plain model: n-grams of order 5 with Witten-Bell interpolation, one of each voice.

Two are tried, and the one that knows the check's chorales better is the baseline: each voice by its own four tokens before; and each
voice by what the network is told too, in the order in which it helps: the place in the beat, its own token before, the notes that sound,
and the tokens of the voices that are chosen before it at the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from data import BEAT, BEGIN, END, FIRST, TOKENS, VOICES, Chorale, begins, pitches, ranges, room, transposed

ORDER = 5
Contexts = Callable[[np.ndarray, int], np.ndarray]


def melodic(rows: np.ndarray, voice: int) -> np.ndarray:
    """(T, 4): the voice's own tokens before each, the nearest first."""
    own = np.concatenate([np.full(ORDER - 1, BEGIN), rows[:, voice]])
    return np.stack([own[ORDER - 1 - back : len(own) - back] for back in range(1, ORDER)], 1)


def harmonic(rows: np.ndarray, voice: int) -> np.ndarray:
    """(T, 4): place in the beat with whether the voice's token before began a note; the note that sounded; the voices before it, as they sound."""
    sounding, fresh = pitches(rows), begins(rows)
    sounding = np.where(rows < FIRST, rows, sounding)
    earlier = np.vstack([np.full((1, len(VOICES)), BEGIN), sounding[:-1]])
    place = np.arange(len(rows)) % BEAT * 2 + np.concatenate([[0], fresh[:-1, voice]])
    now = np.where(fresh | (rows < FIRST), sounding, TOKENS - 1)  # what begins, or that something goes on
    others = [now[:, v] for v in range(voice)][::-1][:2]  # the nearest voice first
    columns = [place, earlier[:, voice], *others]
    columns += [earlier[:, v] for v in (3, 0, 1, 2) if v != voice][: ORDER - 1 - len(columns)]
    return np.stack(columns, 1)


@dataclass(slots=True)
class Counts:
    """How often each token followed each context of one length: sorted (context, token) and (context) with their counts."""

    pairs: np.ndarray
    pair_counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray  # how many different tokens followed

    @classmethod
    def of(cls, contexts: np.ndarray, tokens: np.ndarray) -> "Counts":
        pairs, pair_counts = np.unique(contexts * TOKENS + tokens, return_counts=True)
        found, begins, kinds = np.unique(pairs // TOKENS, return_index=True, return_counts=True)
        return cls(pairs, pair_counts, found, np.add.reduceat(pair_counts, begins), kinds)

    def chances(self, contexts: np.ndarray, tokens: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Witten-Bell: what was counted, with as much of the shorter context's as different tokens were seen."""
        total, kinds = (looked_up(self.contexts, column, contexts) for column in (self.totals, self.kinds))
        count = looked_up(self.pairs, self.pair_counts, contexts * TOKENS + tokens)
        return (count + kinds * shorter) / np.maximum(total + kinds, 1) + (total == 0) * shorter


def looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values at sorted keys, 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


class NGram:
    """Trained on each chorale in every key that the network may hear it in."""

    def __init__(self, train_set: list[Chorale], contexts: Contexts):
        within = ranges(train_set)
        pieces = [ended(transposed(c.rows, up)) for c in train_set for up in room(c.rows, within)]
        self._contexts, self._counts = contexts, []
        for v in range(len(VOICES)):
            seen = np.concatenate([contexts(rows, v) for rows in pieces])
            tokens = np.concatenate([rows[:, v] for rows in pieces])
            self._counts.append([Counts.of(joined(seen, k), tokens) for k in range(ORDER)])

    def nats(self, rows: np.ndarray) -> np.ndarray:
        """(T + 1, 4): minus the logarithm of each token's chance, of those of the end too."""
        rows = ended(rows)
        lost = np.empty(rows.shape)
        for v, counts in enumerate(self._counts):
            seen, tokens = self._contexts(rows, v), rows[:, v]
            chance = np.full(len(rows), 1 / TOKENS)
            for k, counted in enumerate(counts):
                chance = counted.chances(joined(seen, k), tokens, chance)
            lost[:, v] = -np.log(chance)
        return lost

    def mean(self, chosen: list[Chorale]) -> float:
        """`nats` a token of all of them."""
        return float(np.concatenate([self.nats(c.rows) for c in chosen]).mean())


def joined(contexts: np.ndarray, length: int) -> np.ndarray:
    """(T,): the first so many of each context as one number."""
    number = np.zeros(len(contexts), np.int64)
    for k in range(length):
        number = number * TOKENS + contexts[:, k]
    return number


def ended(rows: np.ndarray) -> np.ndarray:
    return np.vstack([rows, np.full((1, len(VOICES)), END)])


def baselines(train_set: list[Chorale], check_set: list[Chorale]) -> list[tuple[str, NGram]]:
    """Both with what they are called, the one that is better on the check's chorales first."""
    models = {name: NGram(train_set, contexts) for name, contexts in (("own voice", melodic), ("all voices", harmonic))}
    by_loss = sorted(models.items(), key=lambda pair: pair[1].mean(check_set))
    return [(f"5-gram, {name}", model) for name, model in by_loss]
