"""Word and character error rates, how sure they are, and what the best label at every step spells."""

from dataclasses import dataclass

import numpy as np
from texts import LABELS, distance


@dataclass(frozen=True, slots=True)
class Score:
    """words, characters: errors (insertions, deletions, replacements) for each of the truth.

    between: of the word error rate, the middle 95 of 100 where the texts are drawn anew, with replacement, 2,000 times.
    """

    words: float
    characters: float
    between: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.between
        return f"word error rate {self.words:.1%} ({low:.1%} to {high:.1%}), character error rate {self.characters:.1%}"


def score(truth: list[str], heard: list[str]) -> Score:
    """Of all texts together: the sum of the errors by the sum of the lengths."""
    pairs = list(zip(truth, heard, strict=True))
    wrong = np.array([distance(t.split(), h.split()) for t, h in pairs])
    count = np.array([len(t.split()) for t in truth])
    drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    low, high = np.quantile(wrong[drawn].sum(1) / count[drawn].sum(1), (0.025, 0.975))
    characters = sum(distance(t, h) for t, h in pairs) / sum(map(len, truth))
    return Score(float(wrong.sum() / count.sum()), characters, (float(low), float(high)))


def greedy(scores: np.ndarray) -> str:
    """(T, labels) -> the best labels, repetitions and then blanks left out."""
    best = scores.argmax(1)
    kept = best[np.flatnonzero(np.diff(best, prepend=0))]
    return " ".join("".join(LABELS[k] for k in kept if k).split())
