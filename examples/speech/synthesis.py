"""More hours: sentences of the prompts' kind, made of the training texts alone, said by eSpeak NG in many voices.

A third are walks through the training prompts (a word follows the two before it as it did there), a third lines of Debian's fortunes, a third
numbers, letters and words of the vocabulary in any order. Whatever is near to a held-out text is thrown away.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import Utterance, resampled
from espeak import Manner, spoken
from texts import near, number

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import CACHE, debian

FORTUNES = {
    "usr/share/games/fortunes/wisdom": "9b0bd6b9331a68c9172219784a411c417c055ed69734edc7b4406795b87d4e94",
    "usr/share/games/fortunes/work": "ad8a0e104160e2c4782fa86e143cd60ffab2872985d4293ffd0af6df19dbfa28",
    "usr/share/games/fortunes/people": "2afb4b9f577be114d2dca279bc5590ee8415e1405295d7d7626c888d82f338e8",
}
ACCENTS = ("en-us", "en-us", "en-us", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland")
SPEAKERS = (
    "",
    "+f1",
    "+f2",
    "+f3",
    "+f4",
    "+f5",
    "+m1",
    "+m3",
    "+m5",
    "+m7",
    "+klatt4",
    "+klatt6",
    "+linda",
    "+Annie",
    "+steph",
    "+belinda",
    "+anika",
    "+Alicia",
)


def synthetic(count: int, training: list[str], held_out: list[str], seed: int, cache: Path = CACHE) -> list[Utterance]:
    """So many utterances, each another text in another manner."""
    generator = np.random.default_rng(seed)
    made = []
    for i, text in enumerate(sentences(count, training, held_out, generator, lines(cache))):
        samples, spans = spoken(text, manner(generator))
        known = tuple(spans) if len(spans) == len(text.split()) else ()
        made.append(Utterance(f"synthetic-{i:05d}", text, resampled(samples, 160, 441), known))  # 22,050 Hz to 8,000
    return made


def manner(generator: np.random.Generator) -> Manner:
    """A voice, mostly American and more often a woman's, as the prompts' is, at an easy pace."""
    voice = str(generator.choice(ACCENTS)) + str(generator.choice(SPEAKERS))
    low, high = (int(x) for x in (generator.integers(30, 75), generator.integers(30, 80)))
    return Manner(voice, int(generator.integers(120, 185)), low, high, int(generator.choice((0, 0, 1, 3))))


def sentences(
    count: int, training: list[str], held_out: list[str], generator: np.random.Generator, others: list[str]
) -> Iterator[str]:
    """So many texts, none of them near to a held-out one."""
    follow = following(training)
    words = sorted({w for t in training for w in t.split()})
    makers = (
        lambda: walk(follow, generator),
        lambda: others[generator.integers(len(others))],
        lambda: mixture(words, generator),
    )
    while count:
        text = makers[count % 3]()
        if text and not any(near(text, other) for other in held_out):
            count -= 1
            yield text


def following(texts: list[str]) -> dict[tuple[str, ...], list[str]]:
    """The words that come after each one and each two; "" stands before a text's beginning and after its end."""
    found = defaultdict(list)
    for text in texts:
        words = ["", "", *text.split(), ""]
        for a, b, c in zip(words, words[1:], words[2:], strict=False):
            found[a, b].append(c)
            found[b,].append(c)
    return found


def walk(follow: dict[tuple[str, ...], list[str]], generator: np.random.Generator, longest: int = 14) -> str:
    """A walk that takes now and then a word as it follows the last one alone, so that it leaves the prompts' own order."""
    words = ["", ""]
    while len(words) < longest + 2:
        known = tuple(words[-2:])
        options = follow[known[1:]] if known not in follow or generator.random() < 0.3 else follow[known]
        word = options[generator.integers(len(options))]
        if not word:
            break
        words.append(word)
    return " ".join(words[2:])


def mixture(words: list[str], generator: np.random.Generator) -> str:
    """Two to eight words of the vocabulary, numbers and letters."""
    made = []
    for _ in range(generator.integers(2, 9)):
        kind = generator.random()
        if kind < 0.15:
            made.append(number(int(generator.choice((10, 100, 1000)) * generator.random())))
        elif kind < 0.25:
            made.append(chr(ord("a") + generator.integers(26)))
        else:
            made.append(words[generator.integers(len(words))])
    return " ".join(made)


def lines(cache: Path = CACHE) -> list[str]:
    """Sentences of 3 to 14 plain words out of Debian's fortunes."""
    folder = debian("fortunes", FORTUNES, cache)
    text = " ".join((folder / name).read_text(encoding="utf-8") for name in FORTUNES)
    found = []
    for sentence in re.split(r"[.!?;:%\"]|--|\n\t", text):
        words = " ".join(sentence.lower().replace(",", " ").split())
        if re.fullmatch(r"[a-z' ]+", words) and 3 <= len(words.split()) <= 14:
            found.append(words)
    return sorted(set(found))
