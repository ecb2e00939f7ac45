"""What the network reads: an English sentence, and behind it a draft of its translation, word by word (Niehues et al. 2016, arXiv:1610.05243).

Of so few sentences a network learns how French goes together, but not most of the words that it is asked for; the dictionary has those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from baseline import Dictionary
from data import Pair
from pieces import END, Pieces

FOLDS = 10


@dataclass(frozen=True, slots=True)
class Example:
    """draft: the English in French words."""

    english: str
    draft: str
    french: str


@dataclass(frozen=True, slots=True)
class Sources:
    """encode: the pieces of a sentence, END, the pieces of its draft."""

    pieces: Pieces
    words: Dictionary

    def encode(self, english: str) -> list[int]:
        return joined(self.pieces, english, self.words.translate(english))


def joined(pieces: Pieces, english: str, draft: str, vary: float = 0.0) -> list[int]:
    return [*pieces.encode(english, vary), END, *pieces.encode(draft, vary)]


def drafted(trained: Sequence[Pair], folds: int = FOLDS) -> list[Example]:
    """The training pairs with drafts by a dictionary that was learned from the other pairs: a draft is no better than that of a new sentence.

    A fold is a run of neighbours: `split` leaves near-copies that change in French beside each other, so that few are in two folds.
    """
    cuts = [len(trained) * i // folds for i in range(folds + 1)]
    found: list[Example] = []
    for begin, end in pairwise(cuts):
        others = Dictionary.learned([*trained[:begin], *trained[end:]])
        found += [Example(p.english, others.translate(p.english), p.french) for p in trained[begin:end]]
    return found
