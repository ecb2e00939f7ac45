"""A language model of words out of texts, as an ARPA file: what is said after what, for the beam search.

Witten and Bell's smoothing, interpolated (1991; Chen and Goodman 1998, section 2.6): of a history h that C words of T kinds followed,

    P(w | h) = (count(h w) + T P(w | h')) / (C + T),    h' being h less its first word, and the last resort 1 / V,

which an ARPA file holds exactly: the probability of each n-gram that was seen, and of each history the weight T / (C + T) of all others.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from data import Utterance
from synthesis import lines
from texts import near

NEVER = -99.0  # log10 of <s>, which nothing predicts
Grams = dict[tuple[str, ...], float]


def language(training: list[Utterance], test: list[Utterance]) -> list[str]:
    """What the language model is made of: the training prompts four times, and the lines of fortunes that are near to no held-out text."""
    return [u.text for u in training] * 4 + [t for t in lines() if not any(near(t, u.text) for u in test)]


def write_arpa(texts: Iterable[str], path: Path, order: int = 3) -> int:
    """Writes the model of the texts' words up to n-grams of `order`; how many n-grams it has."""
    followers = counted(texts, order)
    probabilities, weights = smoothed(followers)
    grams = {("<s>",): NEVER} | {g: math.log10(p) for g, p in probabilities.items()}
    sections = [sorted(g for g in grams if len(g) == n) for n in range(1, order + 1)]
    with path.open("w", encoding="utf-8") as file:
        print("\\data\\", *(f"ngram {n}={len(s)}" for n, s in enumerate(sections, 1)), sep="\n", file=file)
        for n, section in enumerate(sections, 1):
            print(f"\n\\{n}-grams:", file=file)
            for gram in section:
                weight = f"\t{math.log10(weights[gram]):.5f}" if gram in weights else ""
                print(f"{grams[gram]:.5f}\t{' '.join(gram)}{weight}", file=file)
        print("\n\\end\\", file=file)
    return len(grams)


def counted(texts: Iterable[str], order: int) -> dict[tuple[str, ...], Counter[str]]:
    """How often which word followed each history of fewer than `order` words; a text stands between <s> and </s>."""
    followers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for text in texts:
        words = ["<s>", *text.split(), "</s>"]
        for end in range(1, len(words)):
            for begin in range(max(0, end - order + 1), end + 1):
                followers[tuple(words[begin:end])][words[end]] += 1
    return followers


def smoothed(followers: dict[tuple[str, ...], Counter[str]]) -> tuple[Grams, Grams]:
    """(probability of each n-gram that was seen, and of <unk>; weight of what each history did not see)."""
    vocabulary = len(followers[()]) + 1
    weights = {h: len(c) / (c.total() + len(c)) for h, c in followers.items()}
    probabilities: Grams = {("<unk>",): weights[()] / vocabulary}
    for history in sorted(followers, key=len):
        counts = followers[history]
        for word, count in counts.items():
            lower = probabilities[(*history[1:], word)] if history else 1 / vocabulary
            probabilities[(*history, word)] = count / (counts.total() + len(counts)) + weights[history] * lower
    return probabilities, {h: w for h, w in weights.items() if h}
