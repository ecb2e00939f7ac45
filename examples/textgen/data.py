"""Debian's fortunes: quotations, jokes and definitions, most of a sentence or two, split so that no near-copy is on both sides.

The packages `fortunes` and `fortunes-min` (BSD-3-Clause, copyright 1991 The Regents of the University of California: LICENSE-fortunes).
"""

import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from packages import debian

FOLDER = "usr/share/games/fortunes/"
PACKAGES = {
    "fortunes": "be1fb8eb611776ec9e56903d3ea23a910b7c60c3c9fdb7adc685514f8a9f6276",
    "fortunes-min": "fc2e084a24bcd054cf9b769a772fc1e77dde8ad216fd5b5770be768853c9aecd",
}
LEFT_OUT = {
    "ascii-art": "drawings",
    "songs-poems": "lyrics, whose holders the package's licence does not speak for",
    "ethnic": "jokes about peoples",
    "men-women": "jokes about women",
    "translate-me": "not English",
}
HELD_OUT_TENTHS = 1  # of the groups of near-copies; as many again choose when to stop training
LONGEST = 1500  # characters; a few are pages long
RUN = 6  # words in a row that two fortunes share where one is a near-copy of the other


def fortunes() -> list[str]:
    """All fortunes, cleaned, each once, in a stated order; fetches the packages once."""
    found: dict[str, None] = {}
    for name, digest in PACKAGES.items():
        folder = debian(name, {FOLDER: digest}) / FOLDER
        for path in sorted(p for p in folder.iterdir() if not p.suffix and p.name not in LEFT_OUT):
            for text in re.split(r"^%\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
                kept = cleaned(text)
                if kept:
                    found[kept] = None
    return list(found)


def cleaned(text: str) -> str | None:
    """The fortune in plain ASCII, without overstriking and without spaces at the ends of lines; None where that loses letters."""
    text = re.sub(".\b", "", text)
    for fancy, plain in {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."}.items():
        text = text.replace(fancy, plain)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")
    if not text.strip() or len(text) > LONGEST or re.search(r"[^\n\t -~]", text):
        return None
    return text


def split(texts: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(train, valid, test). Fortunes that share six words in a row, signatures aside, are in the same part, and so are all that
    such pairs connect; which part a group is in is a hash of its first fortune, so another package version moves few."""
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for group in groups(texts):
        digest = int(hashlib.sha256(texts[group[0]].encode()).hexdigest(), 16) % 10
        large = len(group) > 20  # a chain of many says more of a form than of copies; it is not what to be judged by
        part = 0 if large else {0: 2, 1: 1}.get(digest // HELD_OUT_TENTHS, 0)
        parts[part].extend(texts[i] for i in group)
    return parts


def groups(texts: list[str]) -> list[list[int]]:
    """Places of near-copies together: connected by runs of RUN words, or by all of their words where they are fewer."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        for run in runs(text):
            first, mine = root(seen.setdefault(run, i)), root(i)
            parent[max(first, mine)] = min(first, mine)
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(len(texts)):
        found[root(i)].append(i)
    return list(found.values())


def runs(text: str) -> set[tuple[str, ...]]:
    """Every RUN words in a row, lower case, without the signature that begins with two dashes."""
    words = re.findall(r"[a-z0-9]+", re.split(r"\n\s*-- ", text)[0].lower())
    if len(words) <= RUN:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
