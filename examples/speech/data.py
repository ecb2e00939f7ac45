"""The Asterisk prompts: 568 recordings of one speaker at 8 kHz, 25 minutes, each with what is said in it.

They are Debian's asterisk-core-sounds-en-wav 1.6.1 (recordings, spoken by Allison Smith) and asterisk-core-sounds-en (transcripts), CC-BY-SA-3.0.
Tones, silence and noises (16 of the recordings) have no words and are left out.
"""

import gzip
import hashlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from texts import near, said

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import CACHE, debian

SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison/"
TRANSCRIPTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
SOUNDS_SHA256 = "e3295e2053fa3ad8bf167b0d6c12bbeed89569a9289a134d38b8fd50ee9a55c5"
TRANSCRIPTS_SHA256 = "436538195b7c7361bd227036686f1a4039f694648c76573bdaca956655d34450"
RATE_HZ = 8000
FOLDS, HELD_OUT, CHOOSING = 5, 0, 1  # what to vary in training was chosen on fold 1, without fold 0


@dataclass(frozen=True, slots=True)
class Utterance:
    """Samples (T,) float32 at 8 kHz, in -1 .. 1, and the words that are said in them; where each begins and ends, in seconds, where that is known."""

    key: str
    text: str
    samples: np.ndarray
    spans: tuple[tuple[float, float], ...] = ()


def prompts(cache: Path = CACHE) -> list[Utterance]:
    """Every prompt in which something is said, by name; fetches the two packages once, into `cache`."""
    sounds = debian("asterisk-core-sounds-en-wav", {SOUNDS: SOUNDS_SHA256}, cache) / SOUNDS
    told = debian("asterisk-core-sounds-en", {TRANSCRIPTS: TRANSCRIPTS_SHA256}, cache) / TRANSCRIPTS
    texts = transcripts(gzip.decompress(told.read_bytes()).decode())
    found = []
    for path in sorted(sounds.rglob("*.wav")):
        key = path.relative_to(sounds).with_suffix("").as_posix()
        if text := said(texts[key]):
            samples, rate = soundfile.read(path, dtype="float32")
            if rate != RATE_HZ:
                raise SystemExit(f"{path}: {rate} samples a second, expected {RATE_HZ}")
            found.append(Utterance(key, text, samples))
    return found


def transcripts(lines: str) -> dict[str, str]:
    """By prompt, of lines `name: what is said` and comments that begin with a semicolon."""
    pairs = (line.partition(":") for line in lines.splitlines() if line.strip() and not line.startswith(";"))
    return {name.strip(): text.strip() for name, _, text in pairs}


def record(chosen: list[Utterance], folder: Path) -> None:
    """A WAV file of each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for u in chosen:
        exact = np.clip(np.rint(u.samples * 32768), -32768, 32767).astype(np.int16)
        soundfile.write(folder / f"{u.key}.wav", exact, RATE_HZ, subtype="PCM_16")


def recorded(folder: Path, chosen: list[Utterance]) -> list[Utterance]:
    """The same with the samples as the files have them."""
    return [replace(u, samples=soundfile.read(folder / f"{u.key}.wav", dtype="float32")[0]) for u in chosen]


def split(everything: list[Utterance], held_out: int = HELD_OUT) -> tuple[list[Utterance], list[Utterance]]:
    """(train, test): no text of the test set, nor its near-copy (`texts.near`), is in the training set.

    Prompts are put together where they are near, by way of others too; the groups are dealt to five folds by a hash of their first text.
    One and two words alone (digits, letters, months, ..) are the vocabulary: groups of nothing else are in every training set.
    """
    groups = grouped(sorted({u.text for u in everything}))
    out = {t for g in groups if max(len(t.split()) for t in g) >= 3 and fold(g) == held_out for t in g}
    return [u for u in everything if u.text not in out], [u for u in everything if u.text in out]


def grouped(texts: list[str]) -> list[list[str]]:
    """The texts in groups; two that are near, or near to a third, are in one."""
    groups: list[list[str]] = []
    for text in texts:
        joined = [g for g in groups if any(near(text, other) for other in g)]
        groups = [g for g in groups if g not in joined] + [[t for g in joined for t in g] + [text]]
    return groups


def fold(group: list[str]) -> int:
    """0 to 4, the same on every machine."""
    return int.from_bytes(hashlib.sha256(min(group).encode()).digest()) % FOLDS


def resampled(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    """At up / down times the rate, by the Fourier transform of the whole with zeros behind it: exact in the band that both rates have."""
    blocks = smooth(-(-len(samples) // down))
    spectrum = np.fft.rfft(samples, blocks * down)[: blocks * up // 2 + 1]
    made = np.fft.irfft(spectrum, blocks * up) * (up / down)
    return made[: round(len(samples) * up / down)].astype(np.float32)


def smooth(least: int) -> int:
    """The least number from `least` on with no prime factor above 5: lengths that are transformed fast."""
    for n in range(max(least, 1), 2 * max(least, 1) + 1):
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
    raise AssertionError("there is a power of two from any number to its double")
