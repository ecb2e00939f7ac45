"""English and French pairs of real software: names (iso-codes) and messages (Django, Wagtail, JupyterLab and others).

They are the compiled catalogues of the wheels in sources.toml, which are only unpacked, never imported. A pair is cleaned the same
way on both sides, and split so that no sentence and no near-copy of it is in two parts (near.py).
"""

import gettext
import random
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from near import groups, letters

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from packages import wheel  # noqa: E402  (lies beside this folder)

LONGEST = 80  # characters of either side; longer ones are paragraphs of help
HOLDERS = 3  # placeholders that a sentence may have: {1}, {2}, {3}
UNCHANGED = 1500  # of the names that French leaves as they are, so many are trained on
_HOLDER = re.compile(r"%\([\w.]+\)[sdr]|%[sdr]|\{\{? ?[\w.]* ?\}?\}|\$\{\w+\}|%\d")
_SAME = str.maketrans(
    {"’": "'", "‘": "'", "′": "'", "“": '"', "”": '"', "«": '"', "»": '"', "…": "...", "–": "-", "‑": "-"}
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One English text and its French. kind: name, message, or unchanged (a name that is the same in French)."""

    english: str
    french: str
    kind: str


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Pair]
    tune: list[Pair]
    test: list[Pair]


def pairs(cache: Path | None = None) -> list[Pair]:
    """Every pair that cleaning leaves, each English text once; fetches the wheels once, into .data/ or `cache`."""
    found: dict[str, Pair] = {}
    for source in tomllib.loads((HERE / "sources.toml").read_text())["wheel"]:
        files = source["files"]
        folder = wheel(source["name"], source["version"], files, *([cache] if cache else []))
        for file in files:
            for english, french in catalogue(folder / file):
                if pair := cleaned(english, french, named=source["name"] == "pycountry"):
                    found.setdefault(pair.english.lower(), pair)
    return list(found.values())


def catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """(English, French) of a compiled catalogue: contexts taken off, of plurals the singular alone."""
    with path.open("rb") as file:
        entries: Mapping[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # it has no other way to list them
    for key, french in entries.items():
        english, form = key if isinstance(key, tuple) else (key, 0)
        if english and form == 0:
            yield english.rpartition("\x04")[2], french


def cleaned(english: str, french: str, named: bool = False) -> Pair | None:
    """The pair in plain punctuation with numbered placeholders; None for what is no text to translate."""
    if any("\n" in text.strip() or "<" in text or "&#" in text or "://" in text for text in (english, french)):
        return None
    pair = numbered(plain(english), plain(french))
    if pair is None or not all(letters(text) and len(text) <= LONGEST for text in pair):
        return None
    same = letters(pair[0]) == letters(pair[1])
    if same and not named:
        return None
    return Pair(*pair, "unchanged" if same else "name" if named else "message")


def plain(text: str) -> str:
    """One way to write what is written in several: quotes, dashes, blanks; no marks of keyboard short cuts."""
    text = " ".join(unicodedata.normalize("NFC", text).replace("&", "").split())
    return text.replace("« ", '"').replace(" »", '"').translate(_SAME)


def numbered(english: str, french: str) -> tuple[str, str] | None:
    """Both with placeholders as {1}, {2}, .. in English order; None where the two sides have not the same ones."""
    names = [match.group() for match in _HOLDER.finditer(english)]
    if len(names) > HOLDERS or sorted(names) != sorted(match.group() for match in _HOLDER.finditer(french)):
        return None

    def number(text: str) -> str:
        left = list(enumerate(names, 1))

        def taken(match: re.Match[str]) -> str:
            place = next(place for place in left if place[1] == match.group())
            left.remove(place)
            return f"{{{place[0]}}}"

        return _HOLDER.sub(taken, text)

    return number(english), number(french)


def split(everything: list[Pair], tune: int = 500, test: int = 1200, seed: int = 0) -> Split:
    """Whole groups of near-copies, drawn at random, until `test` and `tune` pairs that change in French are held out.

    Of the pairs that stay the same, UNCHANGED are trained on; those in held-out groups are held out with them.
    """
    draw = random.Random(seed)
    gathered: dict[int, list[Pair]] = {}
    for pair, group in zip(everything, groups([(p.english, p.french) for p in everything]), strict=True):
        gathered.setdefault(group, []).append(pair)
    order = list(gathered.values())
    draw.shuffle(order)
    parts: tuple[list[Pair], ...] = ([], [], [])
    wanted = (test, tune)
    for group in order:
        part = next((i for i in (0, 1) if sum(p.kind != "unchanged" for p in parts[i]) < wanted[i]), 2)
        parts[part].extend(group)
    held, tuned, train = parts
    changed = [p for p in train if p.kind != "unchanged"]
    same = [p for p in train if p.kind == "unchanged"]
    return Split(changed + draw.sample(same, min(UNCHANGED, len(same))), tuned, held)
