"""Near-copies: which pairs say nearly the same, so that a split can keep them together.

Two pairs are near-copies where, on either side, they have the same words in any order ("Zapotec, Ocotlán" and "Ocotlán Zapotec"), share
a run of RUN letters, or at least ALIKE of their distinct letter trigrams (Jaccard index). Case, accents, digits and punctuation do not
count. Near-copies of near-copies are in one group too.
"""

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

RUN = 24
ALIKE = 0.6


def letters(text: str) -> str:
    """Words of lower-case letters without accents, one blank between them."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalpha() else " " for c in bare).split())


def trigrams(text: str) -> set[str]:
    framed = f" {letters(text)} "
    return {framed[i : i + 3] for i in range(len(framed) - 2)}


def near(one: str, other: str) -> bool:
    """Whether two texts of one language are near-copies: the definition, in plain words; `groups` finds the same ones quickly."""
    a, b = letters(one), letters(other)
    if sorted(a.split()) == sorted(b.split()):
        return True
    if runs(one) & runs(other):
        return True
    shared, total = len(trigrams(one) & trigrams(other)), len(trigrams(one) | trigrams(other))
    return shared >= ALIKE * total


def runs(text: str) -> set[str]:
    run = letters(text).replace(" ", "")
    return {run[i : i + RUN] for i in range(len(run) - RUN + 1)}


def groups(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """For each pair the number of its group; pairs that are near-copies on either side have the same number."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for side in zip(*pairs, strict=True):
        for i, j in links(side):
            parent[root(i)] = root(j)
    return [root(i) for i in range(len(pairs))]


def links(texts: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Enough near-copies (i, j) among the texts to join all that belong together."""
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        for mark in {" ".join(sorted(letters(text).split())), *runs(text)}:
            yield i, first.setdefault(mark, i)
    yield from alike(texts)


def alike(texts: Sequence[str]) -> Iterable[tuple[int, int]]:
    """All (i, j), j < i, whose trigrams are at least ALIKE the same: counted through lists of who has each trigram."""
    grams = [trigrams(text) for text in texts]
    sizes = np.array([len(g) for g in grams])
    having: dict[str, list[int]] = {}
    for i, own in enumerate(grams):
        for g in own:
            having.setdefault(g, []).append(i)
    lists = {g: np.array(found) for g, found in having.items()}
    for i, own in enumerate(grams):
        shared = np.bincount(np.concatenate([lists[g] for g in own]), minlength=len(texts))[:i]
        for j in np.flatnonzero(shared >= ALIKE * (sizes[:i] + sizes[i] - shared)):
            yield i, int(j)
