"""Bach's four-part chorales as rows of four tokens, one row a sixteenth note; no tune is on both sides of the split.

The scores are compressed MusicXML in the wheel of music21 10.5.1, which is unpacked and never imported.
"""

import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import CACHE, wheel

FOLDER = "music21/corpus/bach/"
SHA256 = "2948b4000d2f1f11a654d39dcd82549594a9a5b9e4850f6cad11c769b54d9d2a"  # of the folder
VOICES = ("soprano", "alto", "tenor", "bass")
REST, END, BEGIN, FIRST = range(4)  # nothing sounds; after the last row; before the first; the first token of a pitch
LOWEST, HIGHEST = 33, 84  # MIDI pitches that have tokens: one for a note that begins, the next for one that goes on
TOKENS = FIRST + 2 * (HIGHEST - LOWEST + 1)
BEAT = 4  # rows in a quarter note
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True, slots=True)
class Chorale:
    """name: the file's. rows: tokens (T, 4) int64; a bar begins at each multiple of `bar` rows."""

    name: str
    rows: np.ndarray
    bar: int


def chorales(cache: Path = CACHE) -> list[Chorale]:
    """All chorales of the corpus in four voices, in the order of their names; fetches the wheel once, into `cache`."""
    folder = wheel("music21", "10.5.1", {FOLDER: SHA256}, cache) / FOLDER
    read = (chorale(path.stem, score(path)) for path in sorted(folder.glob("*.mxl")))
    return [c for c in read if c is not None]


def score(path: Path) -> ET.Element:
    """The root of the score in a compressed MusicXML file; its container says which member that is."""
    with zipfile.ZipFile(path) as archive:
        container = ET.fromstring(archive.read("META-INF/container.xml"))
        member = next(e for e in container.iter() if e.tag.endswith("rootfile")).attrib["full-path"]
        return ET.fromstring(archive.read(member))


def chorale(name: str, root: ET.Element) -> Chorale | None:
    """The chorale in a score, or None where it has no four parts named for the voices, or a note that has no token."""
    names = {part.attrib["id"]: (part.findtext("part-name") or "").lower() for part in root.iter("score-part")}
    chosen = [[p for p in root.iter("part") if names[p.attrib["id"]].startswith(voice)] for voice in VOICES]
    if any(len(parts) != 1 for parts in chosen):
        return None
    parts = [parts[0] for parts in chosen]
    beats, kind = parts[0].findtext(".//time/beats"), parts[0].findtext(".//time/beat-type")
    bar = int(beats or 4) * 4 * BEAT // int(kind or 4)
    voices = [notes(part) for part in parts]
    late = -measure_rows(parts[0]) % bar  # an upbeat stands at the end of a bar that begins with rests
    rows = np.stack([tokens(voice, late + max(length for _, length in voices), late) for voice, _ in voices], 1)
    if rows.max() < FIRST:
        return None
    return Chorale(name, sung(rows, bar), bar)


def sung(rows: np.ndarray, bar: int) -> np.ndarray:
    """The rows without the bars in which all voices rest: there the orchestra plays."""
    rows = np.pad(rows, ((0, -len(rows) % bar), (0, 0)), constant_values=REST)
    bars = rows.reshape(-1, bar, len(VOICES))
    rows = bars[(bars != REST).any((1, 2))].reshape(-1, len(VOICES))
    return rows[: np.flatnonzero((rows != REST).any(1))[-1] + 1]


def notes(part: ET.Element) -> tuple[list[tuple[Fraction, Fraction, int]], int]:
    """((begin, end, pitch) of each note of a part's first voice, its length), in rows; tied notes are one."""
    found: list[tuple[Fraction, Fraction, int]] = []
    divisions, now = 1, Fraction(0)
    for measure in part.iter("measure"):
        divisions = int(measure.findtext("attributes/divisions") or divisions)
        for note in measure.iter("note"):
            if note.find("grace") is not None or note.find("chord") is not None or note.findtext("voice", "1") != "1":
                continue
            end = now + Fraction(int(note.findtext("duration") or 0) * BEAT, divisions)
            if (pitch := note.find("pitch")) is not None:
                tied = any(tie.attrib["type"] == "stop" for tie in note.iter("tie"))
                if tied and found and found[-1][1:] == (now, midi(pitch)):
                    found[-1] = (found[-1][0], end, midi(pitch))
                else:
                    found.append((now, end, midi(pitch)))
            now = end
    return found, -int(-now // 1)


def midi(pitch: ET.Element) -> int:
    """The MIDI number of a MusicXML pitch: 60 is the C in the middle."""
    octave, alter = int(pitch.findtext("octave") or 0), round(float(pitch.findtext("alter") or 0))
    return 12 * (octave + 1) + STEPS[pitch.findtext("step") or "C"] + alter


def measure_rows(part: ET.Element) -> int:
    """How many rows a part's first measure has: fewer than a bar where it is an upbeat."""
    first = ET.Element("part")
    first.append(next(part.iter("measure")))
    return notes(first)[1]


def tokens(voice: list[tuple[Fraction, Fraction, int]], length: int, late: int) -> np.ndarray:
    """A voice as tokens (length,), `late` rests first: a note's pitch in the rows that it sounds at the begin of, as one that begins in the first."""
    row = np.full(length, REST)
    for begin, end, pitch in voice:
        first, last = late - int(-begin // 1), late - int(-end // 1)
        row[first:last] = token_of(pitch) + 1
        row[first : min(first + 1, last)] = token_of(pitch)
    return row


def token_of(pitch: int) -> int:
    """The token of a note that begins. Raises ValueError where the pitch has none."""
    if not LOWEST <= pitch <= HIGHEST:
        raise ValueError(f"pitch {pitch} has no token; {LOWEST} to {HIGHEST} have")
    return FIRST + 2 * (pitch - LOWEST)


def pitches(tokens: np.ndarray) -> np.ndarray:
    """The MIDI pitch that sounds, 0 where none does."""
    return np.where(tokens >= FIRST, (tokens - FIRST) // 2 + LOWEST, 0)


def begins(tokens: np.ndarray) -> np.ndarray:
    """bool: where a note begins; along the first axis, one that goes on as another than sounded before begins too."""
    sounding = pitches(tokens)
    other = np.concatenate([np.ones_like(sounding[:1]), np.diff(sounding, axis=0)]) != 0
    return (sounding > 0) & (((tokens - FIRST) % 2 == 0) | other)


# ------------------------------------------------------------------------------------------------ what the network reads


DELAY = np.array([0, 1, 2, 3])  # rows that each voice comes late by


def staggered(rows: np.ndarray) -> np.ndarray:
    """(T + 5, 4): a BEGIN in each voice, then the voices, each DELAY rows late, then END.

    So a voice's next token is chosen when those of the voices before it at the same time are known: the alto hears the
    soprano's note, the tenor both, the bass all three. The chances of the tokens multiply to that of the whole chorale.
    """
    made = np.full((len(rows) + 2 + DELAY.max(), len(VOICES)), END)
    for v, late in enumerate(DELAY):
        made[: 1 + late, v] = BEGIN
        made[1 + late : 1 + late + len(rows), v] = rows[:, v]
    return made


def aligned(made: np.ndarray) -> np.ndarray:
    """The rows (T, 4) of which `staggered` rows are made, before the first END; a voice that is not known as far as the soprano goes on with its last note."""
    rows = np.empty((len(made) - 1, len(VOICES)), np.int64)
    for v, late in enumerate(DELAY):
        known = made[1 + late :, v]
        rows[: len(known), v], rows[len(known) :, v] = known, going_on(known[-1])
    ends = np.flatnonzero((rows == END).any(1))
    return rows[: ends[0]] if len(ends) else rows


def going_on(token: int) -> int:
    """What follows the token when its note is held."""
    return token + (token - FIRST + 1) % 2 if token >= FIRST else token


def scored(made: np.ndarray) -> np.ndarray:
    """bool (T - 1, 4): which tokens after the first row are to be foretold: all but BEGIN and what follows a voice's END."""
    ended = np.cumsum(made == END, axis=0)
    return (made[1:] != BEGIN) & (ended[1:] <= 1)


def transposed(rows: np.ndarray, up: int) -> np.ndarray:
    """The rows so many semitones higher."""
    return np.where(rows >= FIRST, rows + 2 * up, rows)


def room(rows: np.ndarray, within: np.ndarray) -> range:
    """By how many semitones the rows can be moved with every voice within its own (lowest, highest) pitches; at most an octave in all."""
    down, up = -6, 5
    for sung, (low, high) in zip(pitches(rows).T, within, strict=True):
        if sung.any():
            down, up = max(down, low - sung[sung > 0].min()), min(up, high - sung.max())
    return range(min(int(down), 0), max(int(up), 0) + 1)


# ------------------------------------------------------------------------------------------------ the split


def split(everything: list[Chorale], test: float = 0.12, check: float = 0.08) -> tuple[list[Chorale], ...]:
    """(train, check, test): no tune is in two of them. The same chorales give the same split.

    Whole families of chorales are dealt, in a shuffled order, to the test until it has its share, then to the check, then to training.
    """
    families = tunes(everything)
    order = np.random.default_rng(0).permutation(len(families))
    sides: tuple[list[Chorale], ...] = ([], [], [])
    wanted = (len(everything), round(check * len(everything)), round(test * len(everything)))
    for i in order:
        side = next(s for s in (2, 1, 0) if len(sides[s]) < wanted[s])
        sides[side].extend(families[i])
    return tuple(sorted(s, key=lambda c: c.name) for s in sides)


def tunes(everything: list[Chorale], alike: float = 0.25) -> list[list[Chorale]]:
    """The chorales in families by tune: whose sopranos are alike are of one family, and so is who is like one of a family."""
    parent = list(range(len(everything)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    melodies = [phrases(c.rows[:, 0]) for c in everything]
    for i, one in enumerate(melodies):
        for j in range(i):
            if likeness(one, melodies[j]) >= alike:
                parent[root(i)] = root(j)
    families: dict[int, list[Chorale]] = {}
    for i, one in enumerate(everything):
        families.setdefault(root(i), []).append(one)
    return list(families.values())


def phrases(soprano: np.ndarray, size: int = 8) -> set[tuple[int, ...]]:
    """All runs of so many intervals of a voice in semitones; notes that repeat the one before are left out: words change them."""
    moves = np.diff(pitches(soprano)[begins(soprano)])
    moves = moves[moves != 0].tolist()
    return {tuple(moves[i : i + size]) for i in range(len(moves) - size + 1)}


def likeness(one: set[tuple[int, ...]], other: set[tuple[int, ...]]) -> float:
    """How much of the smaller set is in the other, 0 to 1."""
    return len(one & other) / max(min(len(one), len(other)), 1)


def ranges(chosen: Iterable[Chorale]) -> np.ndarray:
    """(4, 2): the lowest and highest pitch of each voice."""
    sung = pitches(np.concatenate([c.rows for c in chosen]))
    return np.array([(v[v > 0].min(), v.max()) for v in sung.T])
